"""Whether audits of a name come: the last one with results, when the next is due, since when it is
overdue.

An audit is due when the schedule says, or once the one before it has ended, and late after a
grace. One that is at work is waited for as long as lies between two audits, and the grace: longer,
and it hangs. What counts is results: one that begins, fails, and begins again is overdue all the
same. Audits are told apart by their numbers: a clock that jumps makes no order of times.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.history import COMMITTED_STATES
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.schedules import ExpectedAudits, find_schedule
from poisonwatch.ledger.tables import audits
from poisonwatch.ledger.transactions import retried
from poisonwatch.schedule_config import ScheduleConfig
from poisonwatch.text.durations import tell_duration
from poisonwatch.text.words import plural

TELLS_NOBODY = (
    "nobody hears where no audit comes: name targets (`alerts`) or a cron monitor (`ping`)"
)


@dataclass(frozen=True, slots=True)
class DoneAudit:
    """An audit that came to its results: when it `started`, and when it was `done`."""

    number: int
    audit_id: str
    started: datetime
    done: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """Whether audits of a `name` come, at a moment (`now`).

    `failed` is how many have begun since the `last` one and came to no results; `at_work_since` is
    when the one that is at work began. `due` is when the next is expected to begin, and is late
    from `late_from` on; None where none is expected.
    """

    name: str
    now: datetime
    expected: ExpectedAudits | None
    last: DoneAudit | None
    failed: int
    at_work_since: datetime | None
    due: datetime | None
    late_from: datetime | None

    @property
    def is_on_time(self) -> bool:
        """Whether the next audit is not late yet, or none is expected."""
        return self.late_from is None or self.now <= self.late_from

    @property
    def is_overdue(self) -> bool:
        """Whether audits have stopped: late, and none is at work that may yet come to results."""
        if self.is_on_time:
            return False
        return not self._waits_for_one_at_work()

    @property
    def overdue_since(self) -> datetime | None:
        """When the audit that did not come was expected to begin."""
        return self.due if self.is_overdue else None

    def _waits_for_one_at_work(self) -> bool:
        if self.at_work_since is None or self.expected is None:
            return False
        schedule, began = self.expected.schedule, self.at_work_since
        return self.now <= began + schedule.find_gap(began) + schedule.find_grace(began)

    def describe(self) -> str:
        """The whole in one line: "last audit 3 h ago, expected every 1 h: overdue since ..."."""
        said = "no audit has come to its results yet"
        if self.last is not None:
            said = f"last audit {tell_ago(self.now - self.last.done)}"
        if self.expected is not None:
            said += f", expected {self.expected.schedule.describe()}"
        if self.is_overdue and self.due is not None:
            said += f": overdue since {write_moment(self.due)}"
        if self.at_work_since is not None:
            said += f"; one is at work since {tell_duration(self.now - self.at_work_since)}"
        if self.failed:
            said += f"; {plural(self.failed, 'audit')} since came to no results"
        return said

    def to_record(self) -> dict[str, Any]:
        """The same as plain JSON; times in UTC, durations in seconds."""
        last, expected = self.last, self.expected
        return {
            "last_audit": last and last.audit_id,
            "last_audit_at": last and _write(last.done),
            "seconds_since": last and (self.now - last.done).total_seconds(),
            "expected": expected and expected.schedule.describe(),
            "due": _write(self.due),
            "late_from": _write(self.late_from),
            "overdue": self.is_overdue,
            "overdue_since": _write(self.overdue_since),
            "at_work_since": _write(self.at_work_since),
            "failed_since": self.failed,
        }


def tells_somebody(config: AuditConfig) -> bool:
    """Whether anybody hears where audits do not come: an alert target, or a cron monitor."""
    return bool(config.alerts) or config.schedule.ping is not None


def tell_ago(duration: timedelta) -> str:
    """How long ago something was; what lies in the future, a clock has jumped over."""
    if duration < timedelta(seconds=-1):
        return f"{tell_duration(duration)} in the future (a clock jumped)"
    return f"{tell_duration(duration)} ago"


def write_moment(moment: datetime) -> str:
    """A moment for people, to the minute, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def expect(
    connection: Connection, name: str, schedule: ScheduleConfig, now: datetime
) -> ExpectedAudits | None:
    """What is expected of a name: what its audit file says, else what the ledger remembers. New
    times hold from now on.
    """
    known = find_schedule(connection, name)
    if not schedule.is_set:
        return known
    since = now
    if known is not None and known.schedule.means_the_same(schedule):
        since = known.since
    return ExpectedAudits(name, schedule, since)


def find_liveness(
    ledger: Ledger, name: str, expected: ExpectedAudits | None, now: datetime
) -> Liveness:
    """Whether audits of a name come, by the ledger."""
    # Asked first: an audit that ends in between has its results in what is read next.
    locked = ledger.is_locked(name)
    last, began = _find_latest(ledger, name)
    at_work = None
    if began and began[-1].state == "running" and locked:
        at_work = _read_time(began[-1].started_at)
    due = late_from = None
    if expected is not None:
        due, late_from = _find_due(expected, last)
    return Liveness(
        name=name,
        now=now,
        expected=expected,
        last=last,
        failed=len(began) - (at_work is not None),
        at_work_since=at_work,
        due=due,
        late_from=late_from,
    )


def _find_due(expected: ExpectedAudits, last: DoneAudit | None) -> tuple[datetime, datetime]:
    """When the next audit is expected to begin, and from when on it is late."""
    schedule = expected.schedule
    before = expected.since
    if last is not None:
        before = max(before, last.started)
    due = schedule.find_next(before)
    if last is not None:
        # One that took longer than lies between two has the next one begin at its end.
        due = max(due, last.done)
    return due, due + schedule.find_grace(before)


@retried
def _find_latest(ledger: Ledger, name: str) -> tuple[DoneAudit | None, list[Any]]:
    """The last audit of a name that has results, and those that began after it."""
    with ledger.read() as connection:
        last = _find_last(connection, name)
        return last, _list_begun_since(connection, name, last.number if last else 0)


def _find_last(connection: Connection, name: str) -> DoneAudit | None:
    query = (
        select(audits.c.audit, audits.c.audit_id, audits.c.started_at, audits.c.finished_at)
        .where(audits.c.name == name, audits.c.state.in_(COMMITTED_STATES))
        .order_by(audits.c.audit.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    started = _read_time(found.started_at)
    done = _read_time(found.finished_at or found.started_at)
    return DoneAudit(found.audit, found.audit_id, started, done)


def _read_time(text: str) -> datetime:
    """A time of the ledger; the beginning of all times where it is none that this library wrote."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    return datetime(1970, 1, 1, tzinfo=UTC)


def _list_begun_since(connection: Connection, name: str, number: int) -> list[Any]:
    """The audits of a name after the one of this number, oldest first: none has results."""
    query = (
        select(audits.c.audit, audits.c.state, audits.c.started_at)
        .where(audits.c.name == name, audits.c.audit > number)
        .order_by(audits.c.audit)
    )
    return list(connection.execute(query).all())


@retried
def count_audits(ledger: Ledger, name: str) -> int:
    """How many audits of a name have begun."""
    counted = select(func.count()).select_from(audits).where(audits.c.name == name)
    with ledger.read() as connection:
        return int(connection.execute(counted).scalar_one())


def _write(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="seconds")
