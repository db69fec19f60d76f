"""Whether audits come: due, at work, late, overdue, back, whatever the clock does."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledgers import NAME, sqlite_ledger
from servers import postgres_server
from silent import HOUR, MINUTE, NOON, add_audit, end_audit

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.schedules import ExpectedAudits
from poisonwatch.liveness.liveness import Liveness, expect, find_liveness
from poisonwatch.schedule_config import ScheduleConfig

HOURLY = ScheduleConfig(every=HOUR)
EXPECTED = ExpectedAudits(NAME, HOURLY, NOON - timedelta(days=9))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def look(ledger: Ledger, now: datetime, expected: ExpectedAudits | None = EXPECTED) -> Liveness:
    return find_liveness(ledger, NAME, expected, now)


def test_an_audit_is_overdue_after_its_time_and_the_grace(ledger: Ledger) -> None:
    """Once per schedule, and half of it late."""
    add_audit(ledger, NOON, NOON + MINUTE)
    assert look(ledger, NOON + 2 * MINUTE).due == NOON + HOUR
    assert not look(ledger, NOON + 1.5 * HOUR).is_overdue
    late = look(ledger, NOON + 1.5 * HOUR + MINUTE)
    assert late.is_overdue
    assert late.overdue_since == NOON + HOUR
    assert late.describe() == (
        "last audit 1 h 30 min ago, expected every 1 h: overdue since 2026-05-04 13:00 UTC"
    )


def test_without_a_schedule_nothing_is_overdue(ledger: Ledger) -> None:
    """However long ago the last audit was."""
    add_audit(ledger, NOON, NOON)
    seen = look(ledger, NOON + timedelta(days=400), None)
    assert (seen.is_overdue, seen.due, seen.describe()) == (False, None, "last audit 400 d ago")


def test_an_audit_that_never_ran_is_overdue_from_when_it_was_expected(ledger: Ledger) -> None:
    """Since the schedule is what it is."""
    expected = ExpectedAudits(NAME, HOURLY, NOON)
    assert not look(ledger, NOON + HOUR, expected).is_overdue
    seen = look(ledger, NOON + 2 * HOUR, expected)
    assert seen.is_overdue
    assert seen.describe().startswith("no audit has come to its results yet, expected every 1 h")


def test_an_audit_at_work_is_told_from_one_that_died(ledger: Ledger) -> None:
    """The one holds the ledger's lock. It is waited for an interval and the grace: then it hangs."""
    add_audit(ledger, NOON, NOON + MINUTE)
    began = NOON + HOUR
    running = add_audit(ledger, began, None, state="running")
    dead = look(ledger, NOON + 2 * HOUR)
    assert (dead.is_overdue, dead.at_work_since, dead.failed) == (True, None, 1)
    assert "1 audit since came to no results" in dead.describe()
    with ledger._take_lock(NAME):
        alive = look(ledger, NOON + 2 * HOUR)
        assert (alive.is_overdue, alive.at_work_since, alive.failed) == (False, began, 0)
        assert not alive.is_on_time
        assert "one is at work since 1 h" in alive.describe()
        assert look(ledger, began + 1.5 * HOUR + MINUTE).is_overdue
    end_audit(ledger, running, NOON + 2 * HOUR)
    assert look(ledger, NOON + 2 * HOUR).is_on_time


def test_audits_that_begin_and_fail_are_overdue_all_the_same(ledger: Ledger) -> None:
    """What counts is results."""
    add_audit(ledger, NOON, NOON + MINUTE)
    for hours in (1, 2, 3):
        began = NOON + hours * HOUR
        add_audit(ledger, began, began + MINUTE, state="interrupted")
    seen = look(ledger, NOON + 3.1 * HOUR)
    assert (seen.is_overdue, seen.failed) == (True, 3)


def test_audits_that_take_longer_than_their_interval_are_on_time(ledger: Ledger) -> None:
    """The next begins when the one before has ended."""
    add_audit(ledger, NOON, NOON + 4 * HOUR)
    assert look(ledger, NOON + 4 * HOUR + 29 * MINUTE).is_on_time
    assert look(ledger, NOON + 4 * HOUR + 31 * MINUTE).is_overdue


def test_audits_of_other_names_are_no_sign_of_life(ledger: Ledger) -> None:
    """Though they come every minute."""
    add_audit(ledger, NOON, NOON)
    add_audit(ledger, NOON + 2 * HOUR, NOON + 2 * HOUR, name="another")
    assert look(ledger, NOON + 2 * HOUR).is_overdue


def test_the_last_audit_is_that_of_the_highest_number(ledger: Ledger) -> None:
    """A clock that jumped back between two makes no order of them; that one lies in the future is
    said.
    """
    add_audit(ledger, NOON + 5 * HOUR, NOON + 5 * HOUR)
    last = add_audit(ledger, NOON, NOON)
    seen = look(ledger, NOON + MINUTE)
    assert seen.last is not None
    assert seen.last.audit_id == last
    add_audit(ledger, NOON + 5 * HOUR, NOON + 5 * HOUR)
    assert "last audit 5 h in the future (a clock jumped)" in look(ledger, NOON).describe()


def test_new_times_hold_from_now_on(ledger: Ledger) -> None:
    """Whoever makes a daily schedule an hourly one is not overdue at once."""
    add_audit(ledger, NOON, NOON)
    now = NOON + 20 * HOUR
    with ledger.read() as connection:
        expected = expect(connection, NAME, HOURLY, now)
    assert look(ledger, now, expected).due == now + HOUR


def test_times_that_nobody_can_read_are_long_ago(ledger: Ledger) -> None:
    """Ledgers of before said none."""
    audit = add_audit(ledger, NOON, NOON)
    with ledger.write() as connection:
        connection.exec_driver_sql(
            "UPDATE audits SET started_at = '', finished_at = '' WHERE audit_id = ?", (audit,)
        )
    assert look(ledger, NOON).is_overdue


def test_a_lock_on_postgresql_is_seen_without_being_taken() -> None:
    """By another process, on a real server; and what is overdue there."""
    with postgres_server() as url, Ledger.at(url) as ledger, Ledger.at(url) as other:
        assert not ledger.is_locked(NAME)
        with other.lock(NAME):
            assert ledger.is_locked(NAME)
            add_audit(ledger, NOON, NOON)
            add_audit(ledger, NOON + HOUR, None, state="running")
            assert look(ledger, NOON + 2 * HOUR).at_work_since == NOON + HOUR
        assert not ledger.is_locked(NAME)
        assert look(ledger, NOON + 2 * HOUR).is_overdue
