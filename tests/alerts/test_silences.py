"""Once a silence, and once that it has ended: who is told what, and by whom."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from ledgers import NAME, sqlite_ledger
from servers import HttpReceiver
from silent import HOUR, MINUTE, NOON, add_audit, end_audit, expecting
from sqlalchemy import select

from poisonwatch.alerts.silences import look_after
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notice_tables import notices
from poisonwatch.ledger.notices import claim_notice, settle_notice
from poisonwatch.ledger.schedules import forget_schedule
from poisonwatch.schedule_config import ScheduleConfig

LATE = NOON + 2 * HOUR


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def one() -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture
def two() -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        yield receiver


def send(ledger: Ledger, config: AuditConfig, now: datetime) -> list[str]:
    """What the targets of an audit file are to be told now, as if they were: kinds and names."""
    look_after(ledger, config, now)
    told = []
    targets = [target.id for target in list_targets(config)]
    with ledger.write() as connection:
        while notice := claim_notice(connection, targets, now):
            settle_notice(connection, notice.delivery, now)
            query = select(notices.c.kind, notices.c.name).where(
                notices.c.notice == notice.delivery.item
            )
            told.append(" ".join(connection.execute(query).one()))
    return told


def test_a_silence_is_told_once_and_once_that_it_ended(ledger: Ledger, one: HttpReceiver) -> None:
    """However often anybody looks."""
    config = expecting(ledger.url, one)
    add_audit(ledger, NOON, NOON + MINUTE)
    assert send(ledger, config, NOON + MINUTE) == []
    assert send(ledger, config, LATE) == [f"overdue {NAME}"]
    assert send(ledger, config, LATE) == []
    assert send(ledger, config, LATE + 99 * HOUR) == []
    add_audit(ledger, LATE + 99 * HOUR, LATE + 99 * HOUR)
    assert send(ledger, config, LATE + 99 * HOUR + MINUTE) == [f"back {NAME}"]
    assert send(ledger, config, LATE + 99 * HOUR + 2 * MINUTE) == []
    # the next silence is another
    assert send(ledger, config, LATE + 200 * HOUR) == [f"overdue {NAME}"]
    with ledger.read() as connection:
        assert len(set(connection.execute(select(notices.c.key)).scalars())) == 3


def test_an_audit_that_begins_is_no_end_of_a_silence(ledger: Ledger, one: HttpReceiver) -> None:
    """It may fail, as those before: results are."""
    config = expecting(ledger.url, one)
    add_audit(ledger, NOON, NOON)
    send(ledger, config, NOON)
    assert send(ledger, config, LATE) == [f"overdue {NAME}"]
    running = add_audit(ledger, LATE, None, state="running")
    with ledger._take_lock(NAME):
        assert send(ledger, config, LATE + MINUTE) == []
    end_audit(ledger, running, LATE + MINUTE, state="interrupted")
    assert send(ledger, config, LATE + 2 * MINUTE) == []
    end_audit(ledger, running, LATE + MINUTE)
    assert send(ledger, config, LATE + 2 * MINUTE) == [f"back {NAME}"]


def test_an_audit_of_another_name_tells_of_it(
    ledger: Ledger, one: HttpReceiver, two: HttpReceiver
) -> None:
    """To its own targets, by what the ledger remembers; each target hears of a silence once, from
    whomever, and that it ended where it heard of it.
    """
    config = expecting(ledger.url, one)
    other = expecting(ledger.url, two, name="other", schedule={})
    both = expecting(ledger.url, one, two, name="third", schedule={})
    add_audit(ledger, NOON, NOON)
    assert send(ledger, config, NOON) == []
    assert send(ledger, other, LATE) == [f"overdue {NAME}"]
    assert send(ledger, config, LATE) == [f"overdue {NAME}"]
    assert send(ledger, both, LATE) == []
    add_audit(ledger, LATE, LATE)
    assert send(ledger, config, LATE) == [f"back {NAME}"]
    assert send(ledger, both, LATE) == [f"back {NAME}"]
    assert send(ledger, other, LATE) == []


def test_a_target_that_heard_of_nothing_hears_of_the_end_alone(
    ledger: Ledger, one: HttpReceiver
) -> None:
    """One message, and not two of what is over; who comes in later hears of neither."""
    config = expecting(ledger.url, one)
    add_audit(ledger, NOON, NOON)
    look_after(ledger, config, NOON)
    look_after(ledger, config, LATE)
    add_audit(ledger, LATE, LATE)
    assert send(ledger, config, LATE) == [f"back {NAME}"]
    with HttpReceiver() as new:
        assert send(ledger, expecting(ledger.url, new), LATE) == []


def test_a_schedule_that_is_taken_back_ends_its_silence(ledger: Ledger, one: HttpReceiver) -> None:
    """And says so."""
    config = expecting(ledger.url, one)
    add_audit(ledger, NOON, NOON)
    send(ledger, config, NOON)
    assert send(ledger, config, LATE) == [f"overdue {NAME}"]
    with ledger.write() as connection:
        forget_schedule(connection, NAME)
    without = config.model_copy(update={"schedule": ScheduleConfig()})
    assert send(ledger, without, LATE) == [f"back {NAME}"]
    with ledger.read() as connection:
        titles = connection.execute(select(notices.c.title).order_by(notices.c.notice)).scalars()
        assert "are not expected any more" in list(titles)[-1]


def test_what_is_told_has_no_markup(ledger: Ledger, one: HttpReceiver) -> None:
    """A name is whatever the audit file says; a cron expression has stars in it."""
    hostile = "<!channel> *b* [x](http://evil.com)"
    config = expecting(ledger.url, one, name=hostile, schedule={"cron": "*/5 * * * *"})
    add_audit(ledger, NOON, NOON, name=hostile)
    look_after(ledger, config, NOON)
    look_after(ledger, config, LATE)
    with ledger.read() as connection:
        (notice,) = connection.execute(select(notices)).all()
    assert not set("<>*@") & set(notice.title + notice.body)
    assert "last audit 2 h ago, expected at" in notice.body
    assert notice.body.splitlines()[-1] == f"Alert {notice.key}"
