"""`poisonwatch status`, as people and supervisors run it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ledgers import NAME, sqlite_ledger
from servers import HttpReceiver, http_receiver
from silent import HOUR, add_audit
from sqlalchemy import update

from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import record_probe
from poisonwatch.ledger.schedules import find_schedule, record_schedule
from poisonwatch.ledger.tables import audits
from poisonwatch.schedule_config import ScheduleConfig

NOW = datetime.now(UTC)
HEAVY = {"torch", "transformers", "prefect", "mlflow", "apprise", "great_expectations", "pandas"}


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def write_config(folder: Path, **settings: Any) -> Path:
    path = folder / "audit.yaml"
    fixed = {
        "name": NAME,
        "source": "rows.jsonl",
        "sentinels": "s.yaml",
        "state": "sqlite:///ledger.db",
    }
    path.write_text(yaml.safe_dump(fixed | settings))
    return path


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with sqlite_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


def make_silent(ledger: Ledger) -> None:
    """The last audit three hours ago, one an hour expected."""
    add_audit(ledger, NOW - 3 * HOUR, NOW - 3 * HOUR)
    with ledger.write() as connection:
        record_schedule(connection, NAME, ScheduleConfig(every=HOUR), NOW - timedelta(days=9))


def test_one_screen_says_that_all_is_well(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each thing that was looked at; exit code 0."""
    add_audit(ledger, NOW - 5 * timedelta(minutes=1), NOW)
    alerts = ["json://127.0.0.1:9/"]
    assert run("status", str(write_config(tmp_path, schedule="1h", alerts=alerts))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{NAME}: all is well"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "last audit",
        "expected",
        "owed",
        "undecided",
        "disk",
        "versions",
        "servers",
    ]
    assert "audit-1" in lines[1]
    assert "every 1 h; next at " in lines[2]


def test_that_nobody_is_told_is_said(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where audits are expected, and neither a target nor a monitor is named."""
    add_audit(ledger, NOW - 5 * timedelta(minutes=1), NOW)
    for schedule, tells in (
        ({"every": "1h"}, False),
        ({"every": "1h", "ping": "https://monitor.example.org/1"}, True),
    ):
        path = str(write_config(tmp_path, schedule=schedule))
        assert run("status", path) == 0
        assert ("\ntold        nobody" in capsys.readouterr().out) is not tells
        run("status", path, "--json")
        assert json.loads(capsys.readouterr().out)["tells"] is tells


def test_rows_that_the_last_audit_rejected_are_counted(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are neither audited nor released, and no flag tells of them."""
    counts = {"new": 9, "flagged": 0, "rejected": 2}
    add_audit(ledger, NOW - 5 * timedelta(minutes=1), NOW)
    with ledger.write() as connection:
        connection.execute(update(audits).values(summary=json.dumps({"counts": counts})))
    assert run("status", str(write_config(tmp_path))) == 0
    assert "9 new rows, 0 flagged, 2 rejected" in capsys.readouterr().out


def test_the_last_probe_says_whether_a_panel_moved(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the latest checkpoint, and which others moved: on the screen, and as JSON. That they did
    is told by alerts: it is no state of the audit's.
    """
    add_audit(ledger, NOW - 5 * timedelta(minutes=1), NOW)
    path = str(write_config(tmp_path, schedule="1h"))
    asked = [{"sentinel": "shop-1", "moved": True}, {"sentinel": "shop-2", "moved": False}]
    said: dict[str, Any] = {"name": NAME, "model": "m" * 64, "sentinels": "s" * 64, "release": None}
    panels = [{"panel": "shop\x1b[2J", "moved": True}]
    record_probe(ledger, "one", checkpoint="d" * 64, asked=asked, **said)
    record_probe(ledger, "two", checkpoint="c" * 64, asked=asked, panels=panels, **said)
    assert run("status", path) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("last probe  ")]
    assert "checkpoint cccccccccccc, " in line
    assert "1 of 2 sentinels moved, and 1 panel as a whole (shop" in line
    assert "\x1b" not in line
    assert "of 1 other checkpoint 1 moved: dddddddddddd" in printed
    run("status", path, "--json")
    last, other = json.loads(capsys.readouterr().out)["probes"]
    assert (last["checkpoint"], last["moved"], last["has_moved"]) == ("c" * 64, ["shop-1"], True)
    assert (other["probe_id"], other["moved_panels"]) == ("one", [])


def test_what_needs_somebody_comes_first_and_is_the_exit_code(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overdue; too little disk; as a page, as JSON, as metrics."""
    make_silent(ledger)
    path = str(write_config(tmp_path))
    assert run("status", path, "--min-free-gb", "1e9") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{NAME}: 2 things to look at"
    assert "audits do not come: last audit 3 h" in lines[1]
    assert "GB left for runs, ledger, MLflow" in lines[2]
    assert run("status", path, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["well"], told["audits"]["overdue"]) == (NAME, False, True)
    assert run("status", path, "--prometheus") == 1
    assert f'poisonwatch_audit_overdue{{name="{NAME}"}} 1\n' in capsys.readouterr().out
    assert run("status", path, "--json", "--prometheus") == 2


def test_the_targets_are_told_once_where_that_is_asked_for(
    ledger: Ledger, tmp_path: Path, receiver: HttpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --alert nobody is; one that does not take it is a trouble, and nothing else is lost."""
    make_silent(ledger)
    path = str(write_config(tmp_path, alerts=[f"json://{receiver.address}/"]))
    assert run("status", path) == 1
    assert receiver.received == []
    receiver.answer = 500
    assert run("status", path, "--alert") == 1
    shown = capsys.readouterr().out
    assert re.search(
        r"notice not delivered to alerts\[1\] \(json\) since .*: answered 500$", shown, re.M
    )
    assert (shown.count("not delivered"), shown.count("answered 500")) == (1, 1)
    assert len(receiver.refused) == 1
    assert run("status", path) == 1
    assert "1 notice to alerts[1] (json) (tried once)" in capsys.readouterr().out
    receiver.answer = 200
    with ledger.write() as connection:
        connection.exec_driver_sql("UPDATE deliveries SET not_before = NULL")
    for _ in range(2):
        assert run("status", path, "--alert") == 1
    assert len(receiver.received) == 1


def test_a_schedule_of_nobody_can_be_forgotten(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of a `watch` that is not coming back; one of the audit file is taken out there."""
    make_silent(ledger)
    assert run("status", str(write_config(tmp_path)), "--forget-schedule") == 0
    assert "nobody says when" in capsys.readouterr().out
    with ledger.read() as connection:
        assert find_schedule(connection, NAME) is None
    assert run("status", str(write_config(tmp_path, schedule="1h")), "--forget-schedule") == 2
    assert "take `schedule:` out of it first" in capsys.readouterr().err


def test_before_any_audit_somebody_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no file is made, whoever asks."""
    path = str(write_config(tmp_path))
    for options in ([], ["--alert"]):
        assert run("status", path, *options) == 1
        assert "there is no ledger" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["audit.yaml"]
    assert run("status", str(tmp_path / "none.yaml")) == 2


def test_history_begins_with_whether_audits_come(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside JSON, on stderr, where they do not."""
    make_silent(ledger)
    path = str(write_config(tmp_path))
    assert run("history", path) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{NAME}: last audit 3 h")
    assert "ago, expected every 1 h: overdue since " in first
    assert run("history", path, "--json") == 0
    told = capsys.readouterr()
    assert [json.loads(line)["audit_id"] for line in told.out.splitlines()] == ["audit-1"]
    assert "overdue since" in told.err


def test_who_asks_how_an_audit_stands_loads_nothing_heavy(ledger: Ledger, tmp_path: Path) -> None:
    """Every minute, by cron or a supervisor: neither model nor Prefect nor MLflow, also where
    nothing is to be told.
    """
    add_audit(ledger, NOW, NOW)
    path = write_config(tmp_path, schedule="1h")
    code = (
        "import sys\nfrom poisonwatch.flows.cli import main\n"
        f"try: main(['status', {str(path)!r}, '--alert'])\nexcept SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    page, loaded = done.stdout.split("LOADED")
    assert "all is well" in page
    assert not HEAVY & set(loaded.split())
