from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from poisonwatch.alerts.messages import compose
from poisonwatch.alerts.targets import targets_of
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.integrations.notify import TYPES, UnreachableError, send
from poisonwatch.ledger import outbox
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.outbox import Alert
from poisonwatch.reports.summary import Attributed
from poisonwatch.tasks.options import OUTSIDE, PLAIN


@task(**PLAIN)
def compose_alerts(ledger: Ledger, config: AuditConfig, summary: Mapping[str, Any], found: Attributed, run_dir: Path) -> list[Alert]:
    """What people are to be told of an audit's flags that they were not told of before."""
    with ledger.read() as connection:
        told = outbox.told_of(connection, config.name)
    return compose(config, summary, found, run_dir, told)


@task(**OUTSIDE)
def deliver(ledger: Ledger, config: AuditConfig) -> int:
    """Send what the audit's targets have not received yet, oldest first: how many messages arrived.

    Whoever calls it holds `ledger.alone()`. Raises OperationError where a target did not take a message; the others have theirs.
    """
    targets = {target.id: target for target in targets_of(config)}
    with ledger.write() as connection:
        outbox.readdress(connection, config.name, list(targets))
        owing = outbox.owing(connection, config.name)
    arrived, reasons = 0, {}
    unreachable: set[str] = set()
    for message in owing:
        if message.target in unreachable:
            continue
        delivered_at = None
        try:
            send(targets[message.target], message.title, message.body, TYPES[message.severity])
            delivered_at, arrived = now(), arrived + 1
        except PoisonwatchError as error:
            reasons[message.target] = f"{targets[message.target]} {error}"
            if isinstance(error, UnreachableError):
                unreachable.add(message.target)
        with ledger.write() as connection:
            outbox.mark(connection, message, delivered_at)
    if reasons:
        left = len(owing) - arrived
        raise OperationError(f"{left} alert{'s' * (left != 1)} not delivered; the next audit sends them: {'; '.join(reasons.values())}")
    return arrived
