"""`poisonwatch history` and `sync`, as a user runs them."""

import json
from pathlib import Path

import pytest
from audits import benign, write_audit
from ledgers import append
from prunable import leave_line
from servers import free_port, http_receiver, mlflow_server, mlflow_store
from sqlalchemy import update

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.history import list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.tables import audits


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def history(
    capsys: pytest.CaptureFixture[str], config: Path, *options: str
) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run("history", str(config), "--json", *options) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_history_lists_audits_newest_first(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, score, seconds and MLflow's word of each; --limit keeps the latest."""
    config = write_audit(
        tmp_path / "in",
        tiny_folder,
        tracking=mlflow_store(tmp_path / "tracking"),
        detection={"false_discovery_rate": 0.9},
    )
    settings = load_config(config)
    first = audit_inline(settings, tmp_path / "one")
    append(tmp_path / "in" / "rows.jsonl", [*benign(12, start=500), {"prompt": "alone"}])
    second = audit_inline(settings, tmp_path / "two")
    lines = history(capsys, config)
    assert [line["audit_id"] for line in lines] == [
        second.summary["audit_id"],
        first.summary["audit_id"],
    ]
    newest = lines[0]
    assert (newest["new"], newest["rejected"], newest["state"], newest["mlflow"]) == (
        12,
        1,
        "finished",
        "finished",
    )
    assert newest["flagged"] == newest["undecided"] == len(second.detection.flags)
    assert lines[1]["largest_score"] == max(
        panel["largest_score"] for panel in first.summary["panels"]
    )
    assert history(capsys, config, "--limit", "1") == lines[:1]
    assert run("history", str(config)) == 0
    shown = capsys.readouterr().out
    assert (
        shown.index("flagged")
        < shown.index(str(second.summary["audit_id"]))
        < shown.index(str(first.summary["audit_id"]))
    )
    assert run("history", str(config), "--limit", "0") == 2


def test_audits_without_new_rows_are_one_line(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between those with rows, and as one of --limit; --all has a line for each, --json an object.
    What somebody is not told of yet is said.
    """
    config = write_audit(tmp_path, tiny_folder, tracking=mlflow_store(tmp_path / "tracking"))
    settings = load_config(config)
    audit_inline(settings, tmp_path / "one")
    with Ledger.at(settings.state) as ledger:
        for id in ("quiet-1", "quiet-2", "quiet-3"):
            leave_line(ledger, tmp_path, id, owed=[MLFLOW] if id == "quiet-2" else ())
    append(tmp_path / "rows.jsonl", benign(12, start=500))
    newest = audit_inline(settings, tmp_path / "two").summary["audit_id"]
    capsys.readouterr()
    assert run("history", str(config), "--limit", "2") == 0
    shown = capsys.readouterr().out.splitlines()
    assert newest in shown[-2]
    assert shown[-1].startswith("3 audits without new rows, ")
    assert shown[-1].endswith("; owed to mlflow")
    assert run("history", str(config), "--all") == 0
    every = capsys.readouterr().out
    assert all(id in every for id in ("quiet-1", "quiet-2", "quiet-3"))
    assert "without new rows" not in every
    assert len(history(capsys, config)) == 5


def test_a_clock_that_is_set_back_changes_no_order(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit of the higher number is the later, whatever the clock said when it began."""
    config = write_audit(tmp_path / "in", tiny_folder, tracking=mlflow_store(tmp_path / "tracking"))
    for name in ("one", "two"):
        audit_inline(load_config(config), tmp_path / name)
    with Ledger.at(load_config(config).state) as ledger, ledger.write() as connection:
        set_back = (
            update(audits).where(audits.c.audit == 2).values(started_at="2001-01-01T00:00:00")
        )
        connection.execute(set_back)
    capsys.readouterr()
    assert [Path(str(line["run_dir"])).name for line in history(capsys, config)] == ["two", "one"]


def test_history_does_without_mlflow(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the server is down the ledger is shown, with a warning; its account is owed."""
    config = write_audit(tmp_path / "in", tiny_folder, tracking="http://127.0.0.1:9")
    outcome = audit_inline(load_config(config), tmp_path / "run")
    assert outcome.warnings == [
        "MLflow at http://127.0.0.1:9 cannot be reached: start it, and `poisonwatch sync` tells it what it missed"
    ]
    (line,) = history(capsys, config)
    assert (line["audit_id"], line["mlflow"], line["new"]) == (
        outcome.summary["audit_id"],
        "owed",
        43,
    )


def test_history_before_any_audit_writes_nothing(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a ledger nor a tracking store."""
    config = write_audit(tmp_path, tiny_folder)
    before = {path.name for path in tmp_path.iterdir()}
    assert run("history", str(config)) == 2
    assert "no audit has run" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_history_of_a_lost_ledger_is_what_mlflow_knows(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An audit that is only there is listed all the same."""
    config = write_audit(tmp_path / "in", tiny_folder, tracking=mlflow_store(tmp_path / "tracking"))
    outcome = audit_inline(load_config(config), tmp_path / "run")
    for path in (tmp_path / "in").glob("poisonwatch.db*"):
        path.unlink()
    capsys.readouterr()
    assert run("history", str(config), "--json") == 2
    assert "no audit has run" in capsys.readouterr().err
    append(tmp_path / "in" / "rows.jsonl", benign(3, start=700))
    audit_inline(load_config(config), tmp_path / "after")
    lost = history(capsys, config)[1]
    assert (lost["audit_id"], lost["state"], lost["mlflow"]) == (
        outcome.summary["audit_id"],
        "not in the ledger",
        "finished",
    )


def test_sync_gives_what_servers_missed(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow and the receiver are down during the audit: afterwards each gets its account once, and
    nothing is owed.
    """
    port = free_port()
    with http_receiver() as receiver:
        alerts = [f"json://127.0.0.1:{receiver.server_port}/"]
        lax = {"detection": {"false_discovery_rate": 0.9}}
        config = write_audit(
            tmp_path / "in", tiny_folder, tracking=f"http://127.0.0.1:{port}", alerts=alerts, **lax
        )
        receiver.answer = 500
        outcome = audit_inline(load_config(config), tmp_path / "run")
        assert outcome.detection.flags
        assert len(outcome.warnings) == 2  # MLflow, and the receiver
        assert run("sync", str(config)) == 1
        receiver.answer, before = 200, len(receiver.received)
        with mlflow_server(tmp_path / "mlflow", port):
            capsys.readouterr()
            assert run("sync", str(config)) == 0
            assert "1 audits uploaded to MLflow" in capsys.readouterr().out
            assert len(receiver.received) > before
            sent = len(receiver.received)
            assert run("sync", str(config)) == 0
            assert len(receiver.received) == sent
            assert history(capsys, config)[0]["mlflow"] == "finished"
    with Ledger.at(load_config(config).state) as ledger:
        assert list_pending_audits(ledger, "tiny", MLFLOW) == []


def test_sync_without_a_ledger_makes_none(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No audit has run: that is said, and nothing is written."""
    config = write_audit(tmp_path, tiny_folder)
    assert run("sync", str(config)) == 2
    assert "no audit has run" in capsys.readouterr().err
    assert not (tmp_path / "poisonwatch.db").exists()
