"""Bring to the Prefect server the audits that it does not have yet."""

import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, RunError
from poisonwatch.integrations.prefect.artifacts import create_artifacts, read_flags
from poisonwatch.integrations.prefect.events import build_events, emit_events
from poisonwatch.ledger.history import (
    PastAudit,
    counting_failures,
    list_pending_audits,
    mark_audit_delivered,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import PREFECT
from poisonwatch.run_directory.checksums import require_unchanged_run
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.seals import find_seal
from poisonwatch.text.display import get_first_line

# "Failed to reach API" is a RuntimeError.
UNAVAILABLE = (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError)


def _require_unchanged(ledger: Ledger, past: PastAudit) -> None:
    # On another machine there is nothing to check, nor to show.
    if past.run_dir.is_dir():
        seal = find_seal(ledger, past.audit_id)
        require_unchanged_run(past.run_dir, seal, without=[OPERATORS_FILE])


def publish_pending(ledger: Ledger, config: AuditConfig) -> int:
    """Show in the Prefect UI the audits that owe it, and emit their events: how many.

    Raises OperationError where no server answers, and RunError where a run directory is not what
    its audit wrote; the others are shown.
    """
    with counting_failures(ledger, config.name, PREFECT):
        return _publish_pending(ledger, config)


def _publish_pending(ledger: Ledger, config: AuditConfig) -> int:
    pending = list_pending_audits(ledger, config.name, PREFECT)
    changed: RunError | None = None
    head = ledger.read_head()
    try:
        # With Prefect's own number of retries a server that is down holds the audit up for minutes.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
            for past in pending:
                # Of an audit that was cut short there is nothing to show, now or later.
                if past.has_results:
                    try:
                        _require_unchanged(ledger, past)
                    except RunError as error:
                        changed = changed or error
                        continue
                    flags = read_flags(past)
                    # Artifacts pile up; of an audit without new rows the event says all.
                    if not past.nothing_new:
                        create_artifacts(config, past, flags)
                    emit_events(list(build_events(config, past, flags, head)))
                mark_audit_delivered(ledger, past.number, PREFECT)
    except UNAVAILABLE as error:
        raise OperationError(
            "the Prefect server did not take the audit's artifacts and events: "
            f"{get_first_line(error)}"
        ) from None
    if changed is not None:
        raise changed
    return len(pending)
