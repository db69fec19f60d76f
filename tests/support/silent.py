"""Ledgers whose audits come, or do not: at times that a test says, without a model."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ledgers import NAME, ONE
from servers import HttpReceiver
from sqlalchemy import insert, select, update

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.ledger.ledger import Ledger, find_or_add_version
from poisonwatch.ledger.tables import audits

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def add_audit(
    ledger: Ledger,
    began: datetime,
    done: datetime | None,
    name: str = NAME,
    state: str = "finished",
) -> str:
    """An audit that began and ended then, in this state: its id."""
    with ledger.write() as connection:
        number = len(connection.execute(select(audits.c.audit)).all()) + 1
        values = {
            "audit_id": f"audit-{number}",
            "name": name,
            "version": find_or_add_version(connection, ONE),
            "state": state,
            "started_at": began.isoformat(timespec="seconds"),
            "finished_at": done and done.isoformat(timespec="seconds"),
            "run_dir": f"/nowhere/runs/{number}",
            "summary": json.dumps(make_summary(f"audit-{number}", began)),
        }
        connection.execute(insert(audits).values(values))
    return str(values["audit_id"])


def make_summary(audit_id: str, began: datetime) -> dict[str, Any]:
    """What a trend asks of an audit that found nothing."""
    counts = {"new": 0, "flagged": 0}
    created = began.isoformat(timespec="seconds")
    return {"audit_id": audit_id, "created": created, "counts": counts, "panels": [], "stages": []}


def end_audit(ledger: Ledger, audit_id: str, done: datetime, state: str = "finished") -> None:
    """An audit that was at work has ended."""
    values = {"state": state, "finished_at": done.isoformat(timespec="seconds")}
    with ledger.write() as connection:
        connection.execute(update(audits).where(audits.c.audit_id == audit_id).values(values))


def expecting(
    state: str, *receivers: HttpReceiver, name: str = NAME, schedule: Any = "1h", **more: Any
) -> AuditConfig:
    """The settings of an audit that is expected every hour, whose targets are these receivers."""
    settings = {
        "name": name,
        "source": "rows.jsonl",
        "sentinels": "s.yaml",
        "state": state,
        "schedule": schedule,
        "alerts": [f"json://{receiver.address}/" for receiver in receivers],
    }
    return resolve_config({**settings, **more}, Path("/nowhere"))


def leave_checkpoint(folder: Path, at: datetime) -> None:
    """A folder that training left at a moment, with weights that nobody reads."""
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    weights.touch()
    for path in (weights, folder):
        os.utime(path, (at.timestamp(), at.timestamp()))
