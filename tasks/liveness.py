"""Tell that audits come, and that others do not."""

from datetime import UTC, datetime

from poisonwatch.alerts.silences import look_after
from poisonwatch.config import AuditConfig
from poisonwatch.integrations import cron_monitor
from poisonwatch.integrations.notices import deliver_notices
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.schedule_config import PingMoment
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT, task


@task(**TRIED_NEXT_AUDIT)
def ping_monitor(config: AuditConfig, moment: PingMoment) -> bool:
    """Tell the monitor of the audit file that an audit starts, came to its results, or failed.

    Raises OperationError where it does not take the ping.
    """
    return cron_monitor.ping_monitor(config.schedule, moment)


@task(**TRIED_NEXT_AUDIT)
def tell_silences(ledger: Ledger, config: AuditConfig) -> int:
    """Tell the audit's targets of audits on this ledger that do not come, or are back: how many
    notices arrived.

    Raises OperationError where a target did not take one.
    """
    now = datetime.now(UTC)
    look_after(ledger, config, now)
    return deliver_notices(ledger, config, now)
