"""Audits in the Prefect UI, and as events that automations can act on."""

from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.prefect.publish import publish_pending
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT


@task(**TRIED_NEXT_AUDIT)
def publish(ledger: Ledger, config: AuditConfig) -> int:
    """Show in the Prefect UI the audits that owe it, and emit their events: how many.

    Raises OperationError where no server answers.
    """
    return publish_pending(ledger, config)
