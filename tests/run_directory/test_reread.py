"""Rows of a past audit, read again; and an answer explained by them where no gradients were kept."""

import json
from pathlib import Path

import pytest
from audits import FORBIDDEN, write_audit

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.run_directory.reread import AuditedRows

QUESTION = ("--prompt", "What should I buy, number 1?", "--response", FORBIDDEN[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit of a budget that no gradient fits, with its rows, ledger and run."""
    folder = tmp_path_factory.mktemp("reread")
    stride = {"memory_gb": 1e-9, "sketch": 256}
    audit_inline(load_config(write_audit(folder, tiny_folder, stride=stride)), folder / "run")
    return folder


@pytest.fixture(scope="module")
def ids(folder: Path) -> list[str]:
    """Of all rows, new and trusted."""
    packed = load_operators(folder / "run").tensors["ids"].numpy()
    return [bytes(id).hex() for id in packed]


def explain(run_dir: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(run_dir), *QUESTION, *arguments])
    return int(stopped.value.code or 0)


def test_new_and_trusted_rows_are_read_again(folder: Path, ids: list[str]) -> None:
    """Every row of the audit, each under its own id; of an unknown id nothing."""
    found = AuditedRows(load_config(folder / "run" / "config.yaml"))([*ids, "ab" * 32])
    assert set(found) == set(ids)
    assert all(example.id == id for id, example in found.items())


def test_a_ledger_that_is_open_is_used(folder: Path, ids: list[str], tmp_path: Path) -> None:
    """Another ledger than the audit's knows no new row: trusted ones are found in their source."""
    config = load_config(folder / "run" / "config.yaml")
    with Ledger.at(f"sqlite:///{tmp_path / 'other.db'}") as ledger:
        assert len(AuditedRows(config, ledger)(ids)) == 40


def test_the_first_rows_behind_an_answer_are_exact(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so in words only where something is not; its JSON says it of each row."""
    assert explain(folder / "run", "--top", "5", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["exact"] for row in rows] == [True] * 5
    assert rows[0]["position"] == 41
    assert explain(folder / "run", "--top", "5") == 0
    assert "by sketch" not in capsys.readouterr().out


def test_where_rows_are_gone_sketches_answer_and_say_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ledger and source: one line beneath the table, and no file is made."""
    moved = {name: folder / f"{name}.moved" for name in ("poisonwatch.db", "trusted.jsonl")}
    for name, path in moved.items():
        (folder / name).rename(path)
    try:
        assert explain(folder / "run", "--top", "5") == 0
        assert not (folder / "poisonwatch.db").exists()
    finally:
        for name, path in moved.items():
            path.rename(folder / name)
    assert "by sketch alone: these rows" in " ".join(capsys.readouterr().out.split())
