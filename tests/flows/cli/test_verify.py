"""`verify` after a real audit, decisions and a release."""

import json
import shutil
from pathlib import Path

import pytest
from audits import write_audit
from mlflow import MlflowClient
from tampering import tamper

from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.ledger import Ledger


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The audit file of an audit that flagged some rows; one of them was decided on, and all that
    was cleared is released.
    """
    folder = tmp_path_factory.mktemp("audited")
    config = write_audit(folder, tiny_folder, detection={"false_discovery_rate": 0.9})
    with (folder / "rows.jsonl").open("a") as file:
        file.write("{not json\n")
    options = ("--engine", "inline", "--quiet", "--run-dir", str(folder / "run"))
    assert run("audit", str(config), *options) == 3
    flagged = json.loads((folder / "run" / "flags.jsonl").read_text().splitlines()[0])
    assert run("decide", str(config), flagged["example_id"], "benign") == 0
    assert run("release", str(config), "--out", str(folder / "cleared")) == 0
    return config


def test_a_ledger_as_it_was_recorded_is_whole(
    audited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, what was checked, and a head that `--head` takes again."""
    assert run("verify", str(audited)) == 0
    said = capsys.readouterr().out
    assert "1 audit, 1 decision, 44 rows, 1 run directory" in said
    assert "nothing is signed" in said
    head = said.split("head of the chain: ")[1].split("\n")[0]
    assert run("verify", str(audited), "--head", head, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["whole"], answer["head"]) == (True, head)
    assert answer["differences"] == []
    number, digits = head.split(":")
    assert run("verify", str(audited), "--head", f"{int(number) + 1}:{digits}") == 1
    assert f"head {int(number) + 1}:{digits[:16]}: expected in the chain" in capsys.readouterr().out


def test_a_head_or_key_that_is_none_is_refused(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line."""
    (tmp_path / "no.pub").write_text("no key")
    for options in (("--head", "no head"), ("--key", str(tmp_path / "no.pub"))):
        assert run("verify", str(audited), *options) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_with_a_key_unsigned_records_differ(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("keys", "init", str(tmp_path / "keys")) == 0
    capsys.readouterr()
    assert run("verify", str(audited), "--key", str(tmp_path / "keys" / "poisonwatch.pub")) == 1
    said = capsys.readouterr().out
    assert "expected signatures of trusted keys, found none" in said
    assert "signatures: 0 of " in said


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE rows SET status = 'clean' WHERE status = 'flagged'", "status"),
        ("UPDATE results SET flagged = 0", "results"),
        ("UPDATE decisions SET author = 'eve'", "decision 1"),
    ],
)
def test_what_was_tampered_with_is_named(
    audited: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    statement: str,
    found: str,
) -> None:
    """Exit code 1; the copy's run directory stays where it was."""
    shutil.copytree(audited.parent, tmp_path / "copy")
    config = tmp_path / "copy" / audited.name
    assert run("verify", str(config)) == 0
    with Ledger.existing(load_config(config).state) as ledger:
        assert tamper(ledger, statement)
    capsys.readouterr()
    assert run("verify", str(config)) == 1
    assert found in capsys.readouterr().out


def test_a_file_of_a_run_directory_that_was_changed_is_named(
    audited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = audited.parent / "run" / "flags.jsonl"
    before = flags.read_bytes()
    try:
        flags.write_bytes(b"")
        assert run("verify", str(audited)) == 1
        assert "run directory run: flags.jsonl" in capsys.readouterr().out
    finally:
        flags.write_bytes(before)
    assert run("verify", str(audited)) == 0


def test_a_place_that_was_changed_is_found_by_verify_and_by_the_gate(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clean row is said to stand where the flagged one does: nothing else of either differs."""
    folder = tmp_path / "copy"
    shutil.copytree(audited.parent, folder)
    config = folder / "audit.yaml"
    gate = "gate", str(folder / "cleared" / "manifest.json"), "--audit", str(config)
    with Ledger.at(load_config(config).state) as ledger:
        tamper(ledger, "UPDATE places SET row = 1 WHERE position = 1")
    assert run("verify", str(config)) == 1
    assert "file rows.jsonl of audit tiny: places" in capsys.readouterr().out
    assert run(*gate) != 0
    shown = capsys.readouterr()
    assert "file rows.jsonl of audit tiny: places" in shown.out + shown.err


def test_runs_in_mlflow_are_witnesses(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ledger that was put back to what it was before its audit is cut off."""
    folder = audited.parent
    assert run("verify", str(audited), "--json") == 0
    assert json.loads(capsys.readouterr().out)["mlflow_runs_with_a_head"] == 1
    run_id = json.loads((folder / "run" / "summary.json").read_text())["mlflow_run_id"]
    client = MlflowClient(load_config(audited).tracking)
    head = client.get_run(run_id).data.tags["poisonwatch.chain"]
    client.set_tag(run_id, "poisonwatch.chain", f"99:{'0' * 64}")
    try:
        assert run("verify", str(audited)) == 1
        assert f"MLflow run {run_id}: expected 99:" in capsys.readouterr().out
    finally:
        client.set_tag(run_id, "poisonwatch.chain", head)
