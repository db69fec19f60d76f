"""How many rows of a pull are copies."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import append, pull, sqlite_ledger
from servers import postgres_server

from poisonwatch.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def scored(rows: list[dict[str, str]], score: int) -> list[dict[str, object]]:
    return [row | {"score": score} for row in rows]


def check_copies(ledger: Ledger, data: Path) -> None:
    data.mkdir()
    write_rows(data / "a.jsonl", benign(5) + benign(2))
    write_rows(data / "b.jsonl", benign(3) + benign(4, start=20))
    assert pull(ledger, data).copies == 5
    # nothing is read
    assert pull(ledger, data).copies == 0
    append(data / "a.jsonl", benign(2) + benign(1, start=90))
    assert pull(ledger, data).copies == 2


def test_a_copy_is_a_row_whose_bytes_stand_before_it(ledger: Ledger, tmp_path: Path) -> None:
    """In its own file, or in another; in an appended part, those before it count."""
    check_copies(ledger, tmp_path / "data")


def test_copies_are_counted_alike_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        check_copies(ledger, tmp_path / "data")


def test_the_same_content_in_other_bytes_is_no_copy(ledger: Ledger, tmp_path: Path) -> None:
    """Three contents with two scores each, and the second ones twice."""
    write_rows(tmp_path / "a.jsonl", scored(benign(3), 1) + 2 * scored(benign(3), 2))
    stats = pull(ledger, tmp_path)
    assert (stats.read, stats.new, stats.variants, stats.copies) == (9, 3, 3, 3)


def test_a_renamed_file_is_no_copy_of_itself(ledger: Ledger, tmp_path: Path) -> None:
    """Its old name is gone; beside it, it is one."""
    write_rows(tmp_path / "a.jsonl", benign(5))
    pull(ledger, tmp_path)
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    assert pull(ledger, tmp_path).copies == 0
    shutil.copy(tmp_path / "b.jsonl", tmp_path / "c.jsonl")
    assert pull(ledger, tmp_path).copies == 5


def test_a_new_file_is_compared_with_those_that_were_not_read(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Whatever their names are."""
    write_rows(tmp_path / "b.jsonl", benign(5))
    pull(ledger, tmp_path)
    write_rows(tmp_path / "a.jsonl", benign(2))
    assert pull(ledger, tmp_path).copies == 2


def test_rows_of_another_source_are_no_copies(ledger: Ledger, tmp_path: Path) -> None:
    """Two audits on one ledger."""
    from ledgers import source

    from poisonwatch.ledger.intake import ingest

    write_rows(tmp_path / "a.jsonl", benign(5))
    pull(ledger, tmp_path)
    assert ingest(ledger, "other", source(tmp_path)).copies == 0
