"""Whoever is alive tells of audits that do not come: `watch`, an audit of another name."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from audits import benign, write_audit
from ledgers import NAME, sqlite_ledger
from notes import Notes
from servers import HttpReceiver, http_receiver, mlflow_store
from silent import HOUR, add_audit, expecting

from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.liveness import keep_guard
from poisonwatch.flows.times import choose_times
from poisonwatch.integrations.notices import tell_silences
from poisonwatch.ledger.schedules import find_schedule, forget_schedule, record_schedule
from poisonwatch.schedule_config import ScheduleConfig

HOURLY = ScheduleConfig(every=HOUR)
DAYS_AGO = datetime.now(UTC) - timedelta(days=3)


class Waiting(HttpReceiver):
    """Says when it was told something."""

    told = threading.Event()

    def finish_request(self, *given: object) -> None:
        super().finish_request(*given)  # type: ignore[arg-type]
        self.told.set()


def test_watch_tells_where_its_audits_do_not_come(tmp_path: Path) -> None:
    """Its schedule passed, and no run came. The ledger remembers the schedule."""
    with sqlite_ledger(tmp_path) as ledger, Waiting() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        add_audit(ledger, DAYS_AGO, DAYS_AGO)
        with ledger.write() as connection:
            record_schedule(connection, NAME, HOURLY, DAYS_AGO)
        config = expecting(ledger.url, receiver, schedule={"grace": "5m"})
        notes = Notes()
        with keep_guard(config, (HOUR, None, "UTC"), notes, every_s=0.05):
            assert receiver.told.wait(120)
        receiver.shutdown()
        assert [message["title"] for message in receiver.received] == [
            f"Poisonwatch: audits of {NAME} do not come"
        ]
        with ledger.read() as connection:
            expected = find_schedule(connection, NAME)
    assert expected is not None
    assert expected.schedule.grace == timedelta(minutes=5)
    assert notes.lines == []


def test_a_guard_that_cannot_look_says_so_and_stops_nothing(tmp_path: Path) -> None:
    """Once, however long that lasts; a cron expression that Prefect alone knows, at the start."""
    with sqlite_ledger(tmp_path):
        pass
    config = expecting(f"sqlite:///{tmp_path / 'ledger.db'}", schedule={})
    noted = threading.Event()

    class Telling(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            noted.set()

    notes = Telling()
    with keep_guard(config, (HOUR, None, "UTC"), notes, every_s=0.05):
        (tmp_path / "ledger.db").unlink()
        assert noted.wait(60)
    assert "there is no ledger" in notes.lines[0]
    notes = Telling()
    with keep_guard(config, (None, "0 22-2 * * *", "UTC"), notes, every_s=60):
        pass
    (line,) = notes.lines
    assert "0 22-2 * * * is no cron expression of five fields" in line


def test_options_and_audit_file_must_agree_on_the_schedule() -> None:
    """What is expected would else not be what comes."""
    nightly = ScheduleConfig(cron="0 2 * * *", timezone="Europe/Berlin")
    assert choose_times(ScheduleConfig(), HOUR, None, "UTC") == (HOUR, None, "UTC")
    assert choose_times(HOURLY, None, None, "UTC") == (HOUR, None, "UTC")
    assert choose_times(HOURLY, HOUR, None, "UTC") == (HOUR, None, "UTC")
    assert choose_times(nightly, None, None, "UTC") == (None, "0 2 * * *", "Europe/Berlin")
    assert choose_times(nightly, None, "0 2 * * *", "UTC")[2] == "Europe/Berlin"
    assert choose_times(ScheduleConfig(), None, None, "UTC") == (None, None, "UTC")
    with pytest.raises(InputError, match="says every 1 h, and the options say something else"):
        choose_times(HOURLY, 2 * HOUR, None, "UTC")
    with pytest.raises(InputError, match="says every 1 h"):
        choose_times(HOURLY, None, "0 2 * * *", "UTC")
    for schedule, every in ((ScheduleConfig(), HOUR), (HOURLY, None)):
        with pytest.raises(InputError, match="leave --timezone out"):
            choose_times(schedule, every, None, "Europe/Berlin")


def test_an_audit_tells_of_those_of_another_name_and_that_its_own_are_back(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """On the same ledger, by the targets of its own audit file."""
    with sqlite_ledger(tmp_path) as ledger, http_receiver() as receiver:
        for name, state in (("other", "finished"), (NAME, "interrupted")):
            add_audit(ledger, DAYS_AGO, DAYS_AGO, name=name, state=state)
            with ledger.write() as connection:
                record_schedule(connection, name, HOURLY, DAYS_AGO)
        path = write_audit(
            tmp_path / "in",
            tiny_folder,
            rows=benign(8),
            reference=None,
            state=ledger.url,
            tracking=mlflow_store(tmp_path / "mlflow"),
            review=False,
            alerts=[f"json://{receiver.address}/"],
        )
        config = load_config(path)
        with ledger.write() as connection:
            forget_schedule(connection, "other")
        tell_silences(config, datetime.now(UTC))
        with ledger.write() as connection:
            record_schedule(connection, "other", HOURLY, DAYS_AGO)
        assert audit_inline(config, tmp_path / "run").warnings == []
        titles = [message["title"] for message in receiver.received]
    assert titles[0] == f"Poisonwatch: audits of {NAME} do not come"
    assert sorted(titles[1:]) == [
        "Poisonwatch: audits of other do not come",
        f"Poisonwatch: audits of {NAME} are back",
    ]
