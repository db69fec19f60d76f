from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from poisonwatch.alerts.messages import compose_messages
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.integrations.notify import APPRISE_TYPES, UnreachableTargetError, send_message
from poisonwatch.ledger import outbox
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.outbox import Alert
from poisonwatch.reports.summary import AttributionResult
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES


@task(**PLAIN)
def compose_alerts(
    ledger: Ledger,
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    run_dir: Path,
) -> list[Alert]:
    """What people are to be told of an audit's flags that they were not told of before."""
    with ledger.read() as connection:
        told = outbox.list_notified_ids(connection, config.name)
    return compose_messages(config, summary, found, run_dir, told)


@task(**WITH_RETRIES)
def deliver(ledger: Ledger, config: AuditConfig) -> int:
    """Send what the audit's targets have not received yet, oldest first: how many messages arrived.

    Whoever calls it holds `ledger.alone()`. Raises OperationError where a target did not take a
    message; the others have theirs.
    """
    targets = {target.id: target for target in list_targets(config)}
    with ledger.write() as connection:
        outbox.retarget(connection, config.name, list(targets))
        owing = outbox.list_pending_alerts(connection, config.name)
    arrived, reasons = 0, {}
    unreachable: set[str] = set()
    for message in owing:
        if message.target in unreachable:
            continue
        delivered_at = None
        try:
            send_message(
                targets[message.target],
                message.title,
                message.body,
                APPRISE_TYPES[message.severity],
            )
            delivered_at, arrived = now(), arrived + 1
        except PoisonwatchError as error:
            reasons[message.target] = f"{targets[message.target]} {error}"
            if isinstance(error, UnreachableTargetError):
                unreachable.add(message.target)
        with ledger.write() as connection:
            outbox.mark_delivered(connection, message, delivered_at)
    if reasons:
        left = len(owing) - arrived
        raise OperationError(
            f"{left} alert{'s' * (left != 1)} not delivered; the next audit sends them: {'; '.join(reasons.values())}"
        )
    return arrived
