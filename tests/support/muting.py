"""Flagged groups of a ledger that are muted, or are to be: for tests of who hears of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clusters import HIGH, LOW, audit, found, pulled, settings
from ledgers import NAME

from poisonwatch.config import AuditConfig
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import Example
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import Mute, record_mute

WHY = "our own campaign"
NOW = datetime.now(UTC)


def days(n: float) -> datetime:
    """So many days from now."""
    return NOW + timedelta(days=n)


def muted(ledger: Ledger, what: str, until: datetime | None = None, **more: Any) -> Mute:
    """A mute of a fortnight, by ann."""
    return record_mute(ledger, NAME, what, until or days(14), WHY, author="ann", **more)


def flagged(
    *groups: tuple[float, slice], panel: str = "shop"
) -> Callable[[list[Example]], AttributionResult]:
    """Groups of rows, each with a score, all on one panel."""

    def find(rows: list[Example]) -> AttributionResult:
        result = found([(score, rows[some]) for score, some in groups])
        flags = tuple(replace(flag, panel=panel) for flag in result.detection.flags)
        evidence = tuple(replace(each, panel=panel) for each in result.evidence)
        return AttributionResult(replace(result.detection, flags=flags), evidence)

    return find


def audit_two_groups(ledger: Ledger, folder: Path, config: AuditConfig) -> None:
    """Audit "one": group 1 is rows 0 to 2, high; group 2 rows 4 and 5, low."""
    audit(ledger, folder / "one", config, flagged((HIGH, slice(3)), (LOW, slice(4, 6))))


def write_two_groups(folder: Path, **more: Any) -> Path:
    """An audit file with these settings, and a ledger in which its audit flagged two groups."""
    path = folder / "audit.yaml"
    written = {
        "name": NAME,
        "source": "data/*.jsonl",
        "sentinels": "pack:identity",
        "state": "sqlite:///ledger.db",
    }
    path.write_text(json.dumps(written | more))
    with pulled(folder) as ledger:
        audit_two_groups(ledger, folder, settings("json://one"))
    return path
