"""Ledgers, run directories and MLflow stores that earlier versions made open in this one: `0.1.0-X`
is what commit X left, before there was a release.

Each is the folder of an audit of 43 rows, two of whose flagged ones were decided on; three rows
came later (tests/fixtures/make_release.py).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from browsing import asking
from released import NAMES, Release, unpacked
from servers import find_postgres_programs, http_receiver, postgres_server
from teamwork import tell_teamwork
from tracking import runs_of

from poisonwatch.config_file import load_config
from poisonwatch.errors import NotClearedError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.gate import require_cleared
from poisonwatch.ledger.decisions import read_decisions, record_decision, verify_chain
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import list_group_rows, list_groups
from poisonwatch.verification.verify import verify_ledger

NAME = "tiny"
SINCE_TEAMS = "0014"  # the revision of versions whose releases hold tests/support/teamwork.py
# What `history` said then, and says still; what else it says may be more by now.
SAME = ("audit_id", "state", "started_at", "new", "flagged", "undecided", "rejected", "run_dir")


@pytest.fixture(params=NAMES)
def release(request: pytest.FixtureRequest) -> Iterator[Release]:
    with unpacked(request.param) as found:
        yield found


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_what_earlier_versions_left_is_here() -> None:
    """From before the chain of records on."""
    assert len(NAMES) >= 4


def test_an_upgrade_says_what_it_changes_and_keeps_what_was(
    release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check changes nothing; then the ledger is of this version, and its copy as it was."""
    ledger = release.folder / "poisonwatch.db"
    before = ledger.read_bytes()
    code = run("upgrade", str(release.config), "--check", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["revision"] == release.told["revision"]
    assert code == int(not told["done"])
    assert (told["newest"] in told["migrations"]) == (told["newest"] != told["revision"])
    assert ledger.read_bytes() == before
    assert run("upgrade", str(release.config), "--json") == 0
    copies = json.loads(capsys.readouterr().out)["copies"]
    if told["migrations"]:
        assert copies[0] == f"{ledger}.before-{told['revision']}"
        assert _read_history(release, Path(copies[0]), capsys) == _pick(release.told["history"])
    assert run("upgrade", str(release.config), "--check") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_history_and_pages_say_what_was_said(
    release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same audits, the report as it was, every flagged row on its page."""
    assert _read_history(release, None, capsys) == _pick(release.told["history"])
    with Ledger.existing(load_config(release.config).state) as ledger:
        groups, _ = list_groups(ledger, AuditFilter(), "all")
        rows = {
            row.example_id: row.decided and row.decided.verdict
            for group in groups
            for row in list_group_rows(ledger, group.audit_id, group.key)
        }
    assert len(rows) == release.told["history"][0]["flagged"]
    decided = release.told["decided"]["runs"]
    assert {id: rows[id] for id in decided} == decided
    with asking(release.config) as client:
        pages = [client.get(f"/triage/{group.audit_id}/{group.number}").text for group in groups]
        report = client.get(f"/audits/{groups[0].audit_id}/report").content
        assert all(
            client.get(address).status_code == 200
            for address in ("/", "/triage", "/sentinels", "/release", "/explain")
        )
    assert report == (release.folder / "runs" / "first" / "report.html").read_bytes()
    assert all(any(f'id="row-{id[:16]}"' in page for page in pages) for id in rows)


def test_the_ledger_is_what_its_records_say_and_decisions_go_on(release: Release) -> None:
    """Nothing differs, run directories included; one decision more is the next of the chain."""
    with Ledger.existing(load_config(release.config).state) as ledger:
        assert verify_ledger(ledger, NAME).differences == []
        made = list(read_decisions(ledger))
        assert {each.example_id: each.verdict for each in made} == release.told["decided"]["runs"]
        id = made[0].example_id
        again = record_decision(ledger, id, "benign", "looked again", "ann")
        assert again.previous == made[-1].hash
        assert verify_chain(ledger) == (len(made) + 1, again.hash)
        assert verify_ledger(ledger, NAME).differences == []


def test_what_people_left_together_is_said_as_it_was(release: Release) -> None:
    """Assignees, comments, agreements, mutes, views, probes; nothing, of a version before them."""
    with Ledger.existing(load_config(release.config).state) as ledger:
        _check_teamwork(release, ledger, "runs")


def test_a_release_of_then_is_cleared_and_one_of_now_is_as_large(release: Release) -> None:
    """What is held back lay within a release once: moved out, the rest is cleared as before."""
    cleared = release.folder / "cleared"
    for name in ("quarantine.jsonl", "rejected.jsonl"):
        if (cleared / name).exists():
            with pytest.raises(NotClearedError):
                require_cleared([str(cleared / "manifest.json")], release.config)
            break
    for name in ("quarantine.jsonl", "rejected.jsonl"):
        (cleared / name).unlink(missing_ok=True)
    number = require_cleared([str(cleared / "manifest.json")], release.config)
    assert number == len((cleared / "clean.jsonl").read_text().splitlines())
    now = release.folder / "now"
    assert run("release", str(release.config), "--out", str(now)) == 0
    assert require_cleared([str(now / "manifest.json")], release.config) == number
    assert (now / "clean.jsonl").read_bytes() == (cleared / "clean.jsonl").read_bytes()


def test_the_next_audit_goes_on_in_the_same_store(release: Release) -> None:
    """Of the rows that came since; MLflow holds both runs, and what was owed is told."""
    settings = yaml.safe_load(release.config.read_text())
    # MLflow keeps a connection to the file that another test had here.
    (release.folder / "mlflow.db").rename(release.folder / "store.db")
    settings["tracking"] = "sqlite:///store.db"
    with http_receiver() as receiver:
        settings["alerts"] = [f"json://{receiver.address}/"]
        release.config.write_text(yaml.safe_dump(settings))
        config = load_config(release.config)
        outcome = audit_inline(config, release.folder / "runs" / "next")
    assert outcome.warnings == []
    assert outcome.summary["counts"]["new"] == release.told["new_since"]
    audit_id = release.told["history"][0]["audit_id"]
    assert any(audit_id in message["message"] for message in receiver.received)
    assert len(runs_of(config)) == 2
    with Ledger.existing(config.state) as ledger:
        assert verify_ledger(ledger, NAME).differences == []


# The others differ in nothing that a replay reads.
@pytest.mark.parametrize("release", [NAMES[0], NAMES[-1]], indirect=True)
def test_a_run_of_then_replays_from_its_own_config(release: Release) -> None:
    """The same rows, though others came since."""
    text = (release.folder / "runs" / "first" / "config.yaml").read_text()
    settings: dict[str, Any] = yaml.safe_load(text)
    settings |= {"alerts": [], "tracking": "http://127.0.0.1:9"}
    (release.folder / "again.yaml").write_text(yaml.safe_dump(settings))
    audit_inline(load_config(release.folder / "again.yaml"), release.folder / "runs" / "again")
    then, now = (
        set(pd.read_parquet(release.folder / "runs" / name / "scores.parquet")["example_id"])
        for name in ("first", "again")
    )
    assert now == then


def test_a_ledger_in_postgresql_opens_and_is_what_its_records_say(
    release: Release, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Restored from a dump of its then tables: --check changes nothing, and decisions go on."""
    path = release.folder / "on_server.yaml"
    with postgres_server() as url:
        monkeypatch.setenv("RELEASE_DATABASE", url)
        command = [str(find_postgres_programs() / "psql"), "-q", "-v", "ON_ERROR_STOP=1"]
        command += ["-f", str(release.folder / "ledger.sql"), url.replace("+psycopg", "")]
        subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
        run("upgrade", str(path), "--check", "--json")
        for _ in range(2):
            told = json.loads(capsys.readouterr().out)
            assert told["revision"] == release.told["revision"]
            run("upgrade", str(path), "--check", "--json")
        capsys.readouterr()
        assert run("upgrade", str(path)) == 0
        with Ledger.existing(load_config(path).state) as ledger:
            assert verify_ledger(ledger, NAME).differences == []
            made = list(read_decisions(ledger))
            decided = {each.example_id: each.verdict for each in made}
            assert decided == release.told["decided"]["runs_on_server"]
            _check_teamwork(release, ledger, "runs_on_server")
            again = record_decision(ledger, made[0].example_id, "benign", "looked again", "ann")
            assert verify_chain(ledger) == (len(made) + 1, again.hash)


def _check_teamwork(release: Release, ledger: Ledger, runs: str) -> None:
    told = tell_teamwork(ledger)
    if release.told["revision"] < SINCE_TEAMS:
        assert not any(told.values())
        return
    assert all(told.values())
    assert told == release.told["teamwork"][runs]


def _read_history(
    release: Release, ledger: Path | None, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, Any]]:
    """What `history` says, of another file of the ledger where one is named: of a copy of it."""
    config = release.config
    if ledger is not None:
        settings = yaml.safe_load(config.read_text())
        shutil.copy(ledger, release.folder / "copy.db")
        settings["state"] = "sqlite:///copy.db"
        config = release.folder / "of-copy.yaml"
        config.write_text(yaml.safe_dump(settings))
    capsys.readouterr()
    assert run("history", str(config), "--json") == 0
    return _pick([json.loads(line) for line in capsys.readouterr().out.splitlines()])


def _pick(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: line[key] for key in SAME} for line in lines]
