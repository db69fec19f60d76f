"""What MLflow is owed, and owes: asked of the ledger first. MLflow takes more than two seconds to
import, and mostly there is nothing to say to it.
"""

from collections.abc import Mapping

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.direct import NotDirectError
from poisonwatch.integrations.mlflow.direct_reviews import read_completed
from poisonwatch.ledger.findings import list_owed_findings
from poisonwatch.ledger.history import counting_failures, list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.reviews import (
    list_review_candidates,
    list_review_changes,
    list_review_traces,
)


class IncompleteUploadError(OperationError):
    """The server is there, and lacks some of what it is owed."""


def upload_owed(ledger: Ledger, config: AuditConfig) -> int:
    """Fill and close the MLflow run of every audit that owes it, oldest first: how many; and put
    beside them what was discovered later. Raises what `upload.upload_pending` does.
    """
    pending, told = list_pending_audits(ledger, config.name, MLFLOW), 0
    if pending:
        from poisonwatch.integrations.mlflow.upload import upload_pending

        with counting_failures(ledger, config.name, MLFLOW):
            told = upload_pending(ledger, config, pending)
    upload_owed_findings(ledger, config)
    return told


def upload_owed_findings(ledger: Ledger, config: AuditConfig) -> None:
    """Put what was discovered in the rows of past audits beside their runs, where they have any.
    Raises what `findings.upload_findings` does.
    """
    findings = list_owed_findings(ledger, config.name)
    if not findings:
        return
    from poisonwatch.integrations.mlflow.findings import upload_findings

    with counting_failures(ledger, config.name, MLFLOW):
        upload_findings(ledger, config, findings)


def queue_undecided(ledger: Ledger, config: AuditConfig) -> int:
    """Put flagged rows that nobody has decided on into the audit's review queue: how many. Items of
    rows that were decided on elsewhere are completed there.

    Raises OperationError where the server cannot be used, or has no review queues.
    """
    new = list_review_candidates(ledger, config.name, 1)
    unanswered = None in list_review_traces(ledger, config.name).values()
    changed = list_review_changes(ledger, config.name)
    # Unanswered rows are looked after too: their queue may be gone. With none of these there is
    # nothing to ask MLflow, which may be too old for reviews, and need not be newer.
    if not new and not unanswered and not changed:
        return 0
    if not new and not changed and _has_queue(config):
        return 0
    from poisonwatch.integrations.mlflow.reviews import queue_rows

    return queue_rows(ledger, config)


def take_answers(ledger: Ledger, config: AuditConfig) -> int:
    """Take people's answers into the chain of decisions: how many.

    Raises OperationError as `queue_undecided`.
    """
    known = list_review_traces(ledger, config.name)
    if not known or not _may_have_answers(known, config):
        return 0
    from poisonwatch.integrations.mlflow.reviews import take_answers_on

    return take_answers_on(known, ledger, config)


def _has_queue(config: AuditConfig) -> bool:
    """Whether the audit's review queue is there, as far as that is known without the client."""
    try:
        return read_completed(config) is not None
    except NotDirectError:
        return False


def _may_have_answers(known: Mapping[str, str | None], config: AuditConfig) -> bool:
    """Whether there are answers on `known` traces, each with the answer that was taken last, that
    were not taken yet; or whether the client alone can tell.
    """
    try:
        completed = read_completed(config) or {}
    except NotDirectError:
        return True
    return any(
        trace in known and answer not in (None, known[trace]) for trace, answer in completed.items()
    )
