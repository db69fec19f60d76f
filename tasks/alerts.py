"""What people are to be told of an audit: composed with its results, which hold it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poisonwatch.alerts.groups import describe_routing
from poisonwatch.alerts.messages import compose_messages
from poisonwatch.alerts.stand_in import compose_stand_in
from poisonwatch.config import AuditConfig
from poisonwatch.detection.result import AttributionResult
from poisonwatch.failures import Attempts
from poisonwatch.ledger.history import find_notified_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import find_active_mutes
from poisonwatch.ledger.outbox import Alert
from poisonwatch.tasks.options import PLAIN, task


@task(**PLAIN)
def describe_readers(
    ledger: Ledger, config: AuditConfig, found: AttributionResult, attempts: Attempts
) -> dict[str, Any]:
    """What the summary says of mutes, and of whose the flagged rows are."""
    with attempts.part("mutes and owners", "not told"):
        mutes = find_active_mutes(ledger, config.name)
        return describe_routing(found, config.alerts, mutes)
    return {"muted": [], "owners": []}


@task(**PLAIN)
def compose_alerts(
    ledger: Ledger,
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    run_dir: Path,
    attempts: Attempts,
) -> list[Alert]:
    """What people are to be notified of: an audit's flags that they were not notified of before.

    Where that cannot be composed, one message says that rows were flagged.
    """
    told = {**summary, "failures": attempts.to_records()}
    with attempts.part("alerts", "not composed"):
        # Before the audit is committed: its own alerts are not among them yet.
        notified_ids = find_notified_ids(ledger, config.name)
        mutes = find_active_mutes(ledger, config.name)
        return compose_messages(config, told, found, run_dir, notified_ids, mutes)
    told["failures"] = attempts.to_records()
    with attempts.part("the alert in their place", "not composed"):
        return compose_stand_in(config, told, found.detection.flags, run_dir)
    return []
