from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.reviews import queue_rows, take_answers, use_review_client
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.reviews import list_review_candidates, list_review_traces
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT


@task(**TRIED_NEXT_AUDIT)
def queue_reviews(ledger: Ledger, config: AuditConfig) -> int:
    """Put flagged rows that nobody has decided on into the audit's review queue: how many.

    Raises OperationError where the server cannot be used, or has no review queues.
    """
    if (
        not list_review_candidates(ledger, config.name, 1)
        and None not in list_review_traces(ledger, config.name).values()
    ):
        return 0
    return use_review_client(
        config, lambda client, experiment_id: queue_rows(client, experiment_id, ledger, config)
    )


@task(**TRIED_NEXT_AUDIT)
def read_reviews(ledger: Ledger, config: AuditConfig) -> int:
    """Take people's answers into the chain of decisions: how many. Raises OperationError as
    `queue_reviews`.
    """
    known = list_review_traces(ledger, config.name)
    if not known:
        return 0
    return use_review_client(
        config,
        lambda client, experiment_id: take_answers(client, experiment_id, ledger, config, known),
    )
