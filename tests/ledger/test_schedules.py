"""What the ledger remembers of when audits are expected."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from ledgers import NAME, sqlite_ledger
from older_ledgers import make_older_ledger
from servers import postgres_server
from silent import HOUR, NOON
from sqlalchemy import select

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notice_tables import schedules
from poisonwatch.ledger.schedules import (
    ExpectedAudits,
    find_schedule,
    forget_schedule,
    list_schedules,
    record_schedule,
)
from poisonwatch.ledger.tables import deliveries
from poisonwatch.schedule_config import ScheduleConfig

HOURLY = ScheduleConfig(every=HOUR)
OWED_OF_0009 = [
    "INSERT INTO versions (version, model, sentinels) VALUES (1, 'm', 's')",
    "INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir) "
    "VALUES (3, 'three', 'tiny', 1, 'finished', '', '')",
    "INSERT INTO deliveries (kind, item, target, audit, attempts) "
    "VALUES ('audit', 3, 'mlflow', 3, 2)",
]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def test_times_are_expected_since_they_were_told_first(ledger: Ledger) -> None:
    """Another grace changes nothing of that; other times do; no times leave what there is."""
    later = NOON + HOUR
    patient = ScheduleConfig(every=HOUR, grace=timedelta(hours=3))
    nightly = ScheduleConfig(cron="0 2 * * *")
    with ledger.write() as connection:
        assert record_schedule(connection, NAME, ScheduleConfig(), NOON) is None
        record_schedule(connection, NAME, HOURLY, NOON)
        record_schedule(connection, NAME, patient, later)
        assert find_schedule(connection, NAME) == ExpectedAudits(NAME, patient, NOON)
        record_schedule(connection, NAME, nightly, later)
        record_schedule(connection, NAME, ScheduleConfig(), later + HOUR)
        assert list_schedules(connection) == [ExpectedAudits(NAME, nightly, later)]
        assert forget_schedule(connection, NAME)
        assert not forget_schedule(connection, NAME)
        assert find_schedule(connection, NAME) is None


def test_no_address_that_is_pinged_is_remembered(ledger: Ledger) -> None:
    """It is a secret of the audit file."""
    secret = ScheduleConfig(every=HOUR, ping="https://hc.example/hunter2secret")
    with ledger.write() as connection:
        record_schedule(connection, NAME, secret, NOON)
        (stored,) = connection.execute(select(schedules.c.schedule)).scalars()
    assert "hunter2" not in stored


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"every": "soon"}', '{"later": 1}', "{}"])
def test_what_a_later_version_remembers_is_nothing_to_this_one(ledger: Ledger, text: str) -> None:
    """And stops nobody."""
    with ledger.write() as connection:
        values = {"name": NAME, "schedule": text, "recorded_at": NOON.isoformat()}
        connection.execute(schedules.insert().values(values))
        assert list_schedules(connection) == []
        record_schedule(connection, NAME, ScheduleConfig(), NOON)


def check_what_was_owed_stays_owed(url: str) -> None:
    make_older_ledger(url, "0009", OWED_OF_0009)
    with Ledger.at(url) as ledger, ledger.write() as connection:
        found = connection.execute(select(deliveries)).all()
        assert found == [("audit", 3, "mlflow", 3, 2, *[None] * 7)]
        record_schedule(connection, NAME, HOURLY, NOON)
        # Of a notice: no audit put it in.
        values = {"kind": "notice", "item": 1, "target": "json-1", "attempts": 0}
        connection.execute(deliveries.insert().values(values))


def test_what_an_older_ledger_owes_stays_owed(tmp_path: Path) -> None:
    """The outbox is made anew, with what was in it."""
    check_what_was_owed_stays_owed(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_what_an_older_ledger_owes_stays_owed_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_what_was_owed_stays_owed(url)
