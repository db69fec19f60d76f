"""`poisonwatch lineage` and `gate --training-run`, on a ledger that no model is needed for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import write_audit
from gates import ONE
from ledgers import NAME
from pairs import PAIR, audited_pairs

from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.release.release import write_release


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A pair is flipped, and there is a release `out`."""
    path = write_audit(tmp_path, tmp_path, tracking="none")
    with audited_pairs(tmp_path, url=load_config(path).state) as ledger:
        record_decision(ledger, PAIR, "flip", "\x1b[2J sold", "ann")
        write_release(ledger, NAME, tmp_path / "out")
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def ask(config: Path, *arguments: str) -> int:
    versions = ("--model-version", ONE.model, "--sentinels-version", ONE.sentinels)
    return run("gate", *arguments, "--audit", str(config), *versions)


def test_a_training_run_is_shown_with_what_it_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In 80 columns, with nothing that a terminal obeys."""
    manifest = config.parent / "out" / "manifest.json"
    assert ask(config, str(manifest), "--training-run", "run-7") == 0
    capsys.readouterr()
    assert run("lineage", str(config), PAIR) == 0
    shown = capsys.readouterr().out
    assert "run-7" in shown
    assert "flip by ann" in shown
    assert "\x1b" not in shown
    assert run("lineage", str(config), str(manifest), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in found["steps"] if step["kind"] == "training run"] == ["run-7"]


def test_a_run_that_is_refused_is_on_record_too(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = config.parent / "out"
    (out / "clean.jsonl").write_text("{}\n")
    assert ask(config, str(out / "manifest.json"), "--training-run", "run-8") == 3
    assert run("lineage", str(config)) == 0
    shown = capsys.readouterr().out
    assert "run-8" in shown
    assert "refused" in shown


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (("out/manifest.json", "--training-run", "a\nb"), "one line"),
        (("out/clean.jsonl", "--training-run", "run-7"), "give the manifest.json"),
        (("nowhere.json", "--training-run", "run-7"), "does not exist"),
    ],
)
def test_what_cannot_be_on_record_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], what: tuple[str, ...], told: str
) -> None:
    assert ask(config, str(config.parent / what[0]), *what[1:]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
