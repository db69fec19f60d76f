from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.reviews import _on, _put_up, _read
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.reviews import under_review, waiting
from poisonwatch.tasks.options import OWED


@task(**OWED)
def queue_reviews(ledger: Ledger, config: AuditConfig) -> int:
    """Put flagged rows that nobody has decided on into the audit's review queue: how many.

    Raises OperationError where the server cannot be used, or has no review queues.
    """
    if not waiting(ledger, config.name, 1) and None not in under_review(ledger, config.name).values():
        return 0
    return _on(config, lambda client, experiment_id: _put_up(client, experiment_id, ledger, config))


@task(**OWED)
def read_reviews(ledger: Ledger, config: AuditConfig) -> int:
    """Take people's answers into the chain of decisions: how many. Raises OperationError as `queue_reviews`."""
    known = under_review(ledger, config.name)
    if not known:
        return 0
    return _on(config, lambda client, experiment_id: _read(client, experiment_id, ledger, config, known))
