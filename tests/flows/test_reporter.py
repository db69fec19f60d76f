"""What a person is told of a source while an audit is at work."""

import pytest

from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.sources.base import PassedOver
from poisonwatch.validation import Validation


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which a line is a line."""
    monkeypatch.setenv("COLUMNS", "100")


def test_what_an_audit_says_fits_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 80 columns; words and paths stay whole."""
    monkeypatch.delenv("COLUMNS")
    path = "/" + "long/" * 30
    Reporter().say(f"{path} " + "is read once more " * 20)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == path
    assert len(others) > 3
    assert all(len(line) <= 80 and line.startswith("  ") for line in others)


def test_files_that_are_read_alike_are_told_of_together(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a format, the first few files by name; hostile names are inert."""
    files = {f"part-{i}.jsonl": "prompt: prompt and response" for i in range(100)}
    ingested = IngestStats(read=100, new=100, files=101, formats=files | {"\x1b[31m": "messages"})
    ingested.passed_over = [PassedOver(f".{i}", "hidden") for i in range(9)]
    Reporter().note_rows(ingested, 100, Validation.empty(), reference=Validation.empty())
    said = capsys.readouterr().err
    assert "\x1b" not in said
    read, other, passed_over, counts = said.splitlines()
    assert read == (
        "part-0.jsonl, part-1.jsonl, part-2.jsonl and 97 more: read as prompt: prompt and response"
    )
    assert other.startswith("\\u{1b}[31m: read as")
    assert passed_over.endswith("and 6 more")
    assert counts.startswith("100 rows read, 100 never seen before")


def test_of_very_many_formats_the_rarest_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of most files first: a line each for eight of them."""
    formats = {f"{i:03}.json": f"format {i if i < 20 else 'most'}" for i in range(1000)}
    ingested = IngestStats(read=1000, new=1000, files=1000, formats=formats)
    Reporter().note_source(ingested, [])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "020.json, 021.json, 022.json and 977 more: read as format most"
    assert len(said) == 9
    assert said[-1] == "007.json, 008.json, 009.json and 10 more: read as 13 other formats"


def test_of_a_pull_without_rows_nothing_is_said_but_that(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No format, no field, no copy."""
    ingested = IngestStats(files=3, unchanged=3)
    Reporter().note_rows(ingested, 0, Validation.empty(), reference=Validation.empty())
    (only,) = capsys.readouterr().err.splitlines()
    assert only.endswith("3 of 3 files unchanged; 0 to audit")
