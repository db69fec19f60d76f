"""When audits of a name are expected, as the ledger remembers it: for whoever has not got the audit
file, and since when it is so.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, delete, insert, select, update

from poisonwatch.ledger.notice_tables import schedules
from poisonwatch.schedule_config import ScheduleConfig


@dataclass(frozen=True, slots=True)
class ExpectedAudits:
    """When audits of a `name` are expected: by a schedule, whose times are so `since` then."""

    name: str
    schedule: ScheduleConfig
    since: datetime


def record_schedule(
    connection: Connection, name: str, schedule: ScheduleConfig, at: datetime
) -> ExpectedAudits | None:
    """Remember a schedule from `at` on; one of the same times keeps its beginning, and one that
    expects nothing leaves what is remembered. Returns what is expected from now on.
    """
    known = find_schedule(connection, name)
    if not schedule.is_set:
        return known
    text = schedule.write()
    if known is None:
        values = {"name": name, "schedule": text, "recorded_at": at.isoformat()}
        connection.execute(insert(schedules).values(values))
        return ExpectedAudits(name, schedule, at)
    since = at
    if known.schedule.means_the_same(schedule):
        since = known.since
    if text != known.schedule.write():
        changed = update(schedules).where(schedules.c.name == name)
        connection.execute(changed.values(schedule=text, recorded_at=since.isoformat()))
    return ExpectedAudits(name, schedule, since)


def find_schedule(connection: Connection, name: str) -> ExpectedAudits | None:
    """What is expected of a name, if anything."""
    found = connection.execute(select(schedules).where(schedules.c.name == name)).one_or_none()
    if found is None:
        return None
    return _read(found)


def list_schedules(connection: Connection) -> list[ExpectedAudits]:
    """What is expected of all names, by name."""
    found = connection.execute(select(schedules).order_by(schedules.c.name)).all()
    return [expected for expected in map(_read, found) if expected is not None]


def forget_schedule(connection: Connection, name: str) -> bool:
    """Expect no audits of a name any more; whether any were."""
    gone = delete(schedules).where(schedules.c.name == name)
    return connection.execute(gone).rowcount > 0


def _read(row: Row[tuple[str, str, str]]) -> ExpectedAudits | None:
    """None where it is of a later version, or of nobody's making."""
    with suppress(ValueError, TypeError):
        schedule = ScheduleConfig.model_validate(json.loads(row.schedule))
        since = datetime.fromisoformat(row.recorded_at)
        if schedule.is_set and since.tzinfo is not None:
            return ExpectedAudits(row.name, schedule, since)
    return None
