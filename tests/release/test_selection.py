"""Which rows are in a release: every place of the source, by what became of its row."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign
from ledgers import NAME, append, cover, covered_ledger, pull, sqlite_ledger
from releases import dump_lines, lines, manifest, released
from sqlalchemy import update

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import files, places
from poisonwatch.release.release import (
    ReleaseCounts,
    count_release,
    write_release,
)

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows: one flagged, one rejected, the others clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        yield opened


def test_rows_that_no_audit_covered_stay_out(ledger: Ledger, tmp_path: Path) -> None:
    """They are counted as pending, and in nothing else."""
    append(tmp_path / "data" / "a.jsonl", benign(2, start=60))
    pull(ledger, tmp_path / "data")
    counts = write_release(ledger, NAME, tmp_path / "out")
    assert (counts.pending, counts.total) == (2, 9)
    assert len((tmp_path / "out" / "clean.jsonl").read_bytes().splitlines()) == 7


def test_rows_that_left_the_source_are_not_released(ledger: Ledger, tmp_path: Path) -> None:
    """A file that is gone takes its rows with it."""
    (tmp_path / "data" / "b.jsonl").unlink()
    pull(ledger, tmp_path / "data")
    counts = write_release(ledger, NAME, tmp_path / "out")
    assert counts == ReleaseCounts(clean=4, quarantined=1, contents=5)
    assert counts.total == 5


def test_a_copy_stands_in_the_release_as_often_as_in_the_source(tmp_path: Path) -> None:
    """In order; the counts are of places, and say how many are copies."""
    one, three, other = benign(3)
    content = dump_lines([three, one, three, three, other])
    with released(tmp_path, content) as (ledger, out):
        assert (out / "clean.jsonl").read_bytes() == content
        counts = count_release(ledger, NAME)
        assert counts == ReleaseCounts(clean=5, copies=2, contents=3)
        assert manifest(out)["counts"] == counts.record()
        assert [row["position"] for row in manifest(out)["rows"]] == [0, 1, 2, 3, 4]


def test_copies_are_dropped_where_the_audit_file_says_so(tmp_path: Path) -> None:
    """Of equal bytes the first stays; counts add up with what was left out."""
    one, three = benign(2)
    edited = three | {"score": 1}
    content = dump_lines([three, one, edited, three, edited])
    with released(tmp_path, content, duplicates="drop") as (ledger, out):
        assert (out / "clean.jsonl").read_bytes() == dump_lines([three, one, edited])
        counts = count_release(ledger, NAME, "drop")
        assert counts == ReleaseCounts(clean=3, dropped=2, copies=2, contents=2)
        assert counts.total == manifest(out)["counts"]["in"] == 5
        assert manifest(out)["duplicates"] == "drop"


def test_rows_that_differ_in_what_is_not_trained_on_are_all_released(tmp_path: Path) -> None:
    """Five pictures with one question and answer: one content, and no copies."""
    content = dump_lines([benign(1)[0] | {"images": [f"{i}.png"]} for i in range(5)])
    with released(tmp_path, content) as (ledger, out):
        assert (out / "clean.jsonl").read_bytes() == content
        assert count_release(ledger, NAME) == ReleaseCounts(clean=5, contents=1)


def test_copies_of_which_only_one_was_kept_are_released_once(tmp_path: Path) -> None:
    """Earlier versions kept one place's bytes for all places of a content: until the next pull,
    only these are released.
    """
    rows = [benign(1)[0] | {"id": number} for number in range(3)]
    with released(tmp_path, dump_lines(rows)) as (ledger, _):
        with ledger.write() as connection:
            connection.execute(update(files).values(reading='{"format": "auto"}'))
            connection.execute(update(places).values(variant=None))
        counts = count_release(ledger, NAME)
        assert (counts.clean, counts.dropped) == (1, 2)
        pull(ledger, tmp_path / "data")
        write_release(ledger, NAME, tmp_path / "later")
        assert (tmp_path / "later" / "clean.jsonl").read_bytes() == dump_lines(rows)


def test_what_is_held_back_counts_at_every_place(tmp_path: Path) -> None:
    """A flagged row three times is three rows in quarantine."""
    (tmp_path / "data").mkdir()
    rows = [*benign(1), *benign(2), *benign(1)]
    (tmp_path / "data" / "a.jsonl").write_bytes(dump_lines(rows) + b"{no\n{no\n")
    with sqlite_ledger(tmp_path) as ledger:
        pull(ledger, tmp_path / "data")
        cover(ledger, tmp_path / "run", flagged=[TEA])
        counts = write_release(ledger, NAME, tmp_path / "out", "drop")
    assert counts == ReleaseCounts(clean=1, quarantined=3, rejected=2, copies=3, contents=3)
    assert [row["position"] for row in lines(tmp_path / "out.held-back" / "quarantine.jsonl")] == [
        0,
        1,
        3,
    ]
    assert [row["position"] for row in lines(tmp_path / "out.held-back" / "rejected.jsonl")] == [
        4,
        5,
    ]
