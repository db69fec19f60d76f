"""Flagged rows go into MLflow's review queue, and people's answers come back from it."""

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.owed import queue_undecided, take_answers
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT, task


@task(**TRIED_NEXT_AUDIT)
def queue_reviews(ledger: Ledger, config: AuditConfig) -> int:
    """Put flagged rows that nobody has decided on into the audit's review queue: how many.

    Raises OperationError where the server cannot be used, or has no review queues.
    """
    if config.tracking is None:
        return 0
    return queue_undecided(ledger, config)


@task(**TRIED_NEXT_AUDIT)
def read_reviews(ledger: Ledger, config: AuditConfig) -> int:
    """Take people's answers into the chain of decisions: how many.

    Raises OperationError as `queue_reviews`.
    """
    if config.tracking is None:
        return 0
    return take_answers(ledger, config)
