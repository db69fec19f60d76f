"""Deliver alerts, and tell again what nobody answered: once results are in the ledger."""

from poisonwatch.alerts.reminders import write_reminders
from poisonwatch.config import AuditConfig
from poisonwatch.integrations.notify import deliver_pending
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT, task


@task(**TRIED_NEXT_AUDIT)
def remind(ledger: Ledger, config: AuditConfig) -> int:
    """Put in what people are told again, or now that it is muted no more: how many messages.

    Whoever calls it holds `ledger.lock()`. Raises what the ledger's signer raises.
    """
    return write_reminders(ledger, config)


@task(**TRIED_NEXT_AUDIT)
def deliver(ledger: Ledger, config: AuditConfig, at_once: bool = False) -> int:
    """Send what the audit's targets have not received yet: how many alerts arrived. With `at_once`,
    targets that failed are tried before it is their time.

    Whoever calls it holds the lock on the audit's name. Raises OperationError where a target did
    not take a message.
    """
    return deliver_pending(ledger, config, at_once=at_once)
