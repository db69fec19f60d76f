"""Audits in the Prefect UI, and as events that automations can act on."""

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT, task


@task(**TRIED_NEXT_AUDIT)
def publish(ledger: Ledger, config: AuditConfig) -> int:
    """Show in the Prefect UI the audits that owe it, and emit their events: how many.

    Raises OperationError where no server answers.
    """
    # where no server is configured, nobody imports Prefect
    from poisonwatch.integrations.prefect.publish import publish_pending

    return publish_pending(ledger, config)
