"""Releases: what was cleared, byte by byte, and counts that add up."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from audits import benign
from ledgers import NAME, append, cover, covered_ledger, pull, source, statuses
from sqlalchemy import select, update

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import decisions, files, places, rows
from poisonwatch.release.release import (
    ReleaseCounts,
    count_release,
    preview_release,
    write_release,
)

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows: one flagged, one rejected, the others clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        yield opened


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return read


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_clean_rows_come_out_byte_by_byte(ledger: Ledger, tmp_path: Path) -> None:
    """The lines as they came, in order, without the flagged and the broken one."""
    write_release(ledger, NAME, tmp_path / "out")
    came = (tmp_path / "data" / "a.jsonl").read_bytes().splitlines()[1:] + (
        tmp_path / "data" / "b.jsonl"
    ).read_bytes().splitlines()[:3]
    assert (tmp_path / "out" / "clean.jsonl").read_bytes() == b"".join(
        line + b"\n" for line in came
    )
    assert statuses(ledger) == {"released": 7, "flagged": 1, "rejected": 1}


def test_the_manifest_says_who_cleared_what(ledger: Ledger, tmp_path: Path) -> None:
    """in = clean + quarantined + rejected; the SHA-256 of every row and file; the audit with model
    and sentinels.
    """
    counts = write_release(ledger, NAME, tmp_path / "out")
    written = manifest(tmp_path / "out")
    assert (
        written["counts"]
        == counts.record()
        == {
            "in": 9,
            "clean": 7,
            "quarantined": 1,
            "rejected": 1,
            "dropped": 0,
            "pending": 0,
            "copies": 0,
            "contents": 9,
        }
    )
    clean = (tmp_path / "out" / "clean.jsonl").read_bytes()
    assert written["files"] == [
        {"name": "clean.jsonl", "rows": 7, "sha256": hashlib.sha256(clean).hexdigest()}
    ]
    assert [row["sha256"] for row in written["rows"]] == [
        hashlib.sha256(line).hexdigest() for line in clean.splitlines()
    ]
    assert {row["audit_id"] for row in written["rows"]} == {"run"} == set(written["audits"])
    assert (written["audits"]["run"]["model"], written["audits"]["run"]["sentinels"]) == (
        "m" * 64,
        "s" * 64,
    )
    assert written["audits"]["run"]["run"] == "run"  # the name of the run directory


def test_what_is_held_back_says_why(ledger: Ledger, tmp_path: Path) -> None:
    """Flagged rows with their reasons, rejected ones with the expectation."""
    write_release(ledger, NAME, tmp_path / "out")
    (held,) = lines(tmp_path / "out.held-back" / "quarantine.jsonl")
    assert (held["source"], held["position"], held["status"]) == ("a.jsonl", 0, "flagged")
    assert "score 9.0" in held["reasons"][0]
    (rejected,) = lines(tmp_path / "out.held-back" / "rejected.jsonl")
    assert (rejected["source"], rejected["position"], rejected["expectation"]) == (
        "b.jsonl",
        3,
        "readable",
    )


def test_a_benign_verdict_releases_the_row_next_time(ledger: Ledger, tmp_path: Path) -> None:
    """And a poison verdict holds a released one back."""
    write_release(ledger, NAME, tmp_path / "one")
    record_decision(ledger, "a.jsonl:0", "benign")
    record_decision(ledger, "a.jsonl:1", "poison")
    write_release(ledger, NAME, tmp_path / "two")
    released = {
        (row["source"], row["position"]): row["decided"]
        for row in manifest(tmp_path / "two")["rows"]
    }
    assert released["a.jsonl", 0] == "benign"
    assert ("a.jsonl", 1) not in released
    assert [row["status"] for row in lines(tmp_path / "two.held-back" / "quarantine.jsonl")] == [
        "poison"
    ]
    assert manifest(tmp_path / "two")["decisions"]["number"] == 2


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


def test_parquet_comes_out_as_parquet(tmp_path: Path) -> None:
    """The same columns, types and values, without the flagged row."""
    frame = pd.DataFrame(benign(6)).assign(
        weight=[0.5, None, 2.0, 3.5, 4.0, 5.0], tags=[["a"], [], None, ["b", "c"], ["d"], []]
    )
    frame.to_parquet(tmp_path / "a.parquet")
    config = source(tmp_path).model_copy(update={"path": str(tmp_path / "a.parquet")})
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ingest(ledger, NAME, config)
        cover(ledger, tmp_path / "run", flagged=[TEA])
        write_release(ledger, NAME, tmp_path / "out")
    came, out = (
        pq.read_table(tmp_path / "a.parquet"),
        pq.read_table(tmp_path / "out" / "clean.parquet"),
    )
    assert out.equals(came.slice(1))
    assert [file["rows"] for file in manifest(tmp_path / "out")["files"]] == [5]


def test_a_release_never_overwrites(ledger: Ledger, tmp_path: Path) -> None:
    """A folder that is there is left as it is."""
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="already exists"):
        write_release(ledger, NAME, tmp_path / "out")
    with pytest.raises(InputError, match="no audited row of nobody"):
        write_release(ledger, "nobody", tmp_path / "other")
    assert not (tmp_path / "other.part").exists()


def test_a_tampered_chain_stops_the_release(ledger: Ledger, tmp_path: Path) -> None:
    """A verdict that was changed behind the chain's back releases nothing."""
    record_decision(ledger, "a.jsonl:0", "poison")
    with ledger.write() as connection:
        connection.execute(update(decisions).values(verdict="benign"))
        connection.execute(
            update(rows).where(rows.c.status == "poison").values(decided="benign", status="clean")
        )
    with pytest.raises(InputError, match="was changed or removed"):
        write_release(ledger, NAME, tmp_path / "out")


def test_a_crash_before_the_end_leaves_a_release_that_can_be_repeated(
    ledger: Ledger, tmp_path: Path
) -> None:
    """A half-written folder from before is cleared; both releases give the same rows."""
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "clean.jsonl").write_text("half")
    write_release(ledger, NAME, tmp_path / "out")
    write_release(ledger, NAME, tmp_path / "again")
    assert (tmp_path / "out" / "clean.jsonl").read_bytes() == (
        tmp_path / "again" / "clean.jsonl"
    ).read_bytes()
    with ledger.read() as connection:
        assert set(connection.execute(select(rows.c.status)).scalars()) == {
            "released",
            "flagged",
            "rejected",
        }


def test_a_preview_is_the_release_and_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """File by file, but for the time in the manifest; no row counts as released."""
    before = statuses(ledger)
    counts = preview_release(ledger, NAME, tmp_path / "preview")
    assert statuses(ledger) == before
    assert counts == count_release(ledger, NAME) == write_release(ledger, NAME, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        if path.name != "manifest.json":
            assert (tmp_path / "preview" / path.name).read_bytes() == path.read_bytes()
    assert manifest(tmp_path / "preview") | {"created": ""} == manifest(tmp_path / "out") | {
        "created": ""
    }
    with pytest.raises(InputError, match="already exists"):
        preview_release(ledger, NAME, tmp_path / "preview")


@contextmanager
def released(folder: Path, content: bytes, **settings: Any) -> Iterator[tuple[Ledger, Path]]:
    """A source of this one file, all clean, and the folder of its release."""
    (folder / "data").mkdir()
    (folder / "data" / "a.jsonl").write_bytes(content)
    with Ledger.at(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        pull(ledger, folder / "data")
        cover(ledger, folder / "run")
        write_release(ledger, NAME, folder / "out", **settings)
        yield ledger, folder / "out"


def dump_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


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


def test_the_release_follows_the_source(tmp_path: Path) -> None:
    """After a pull, without an audit: the bytes that stand there now, in the order of now."""
    before = [row | {"score": 1} for row in benign(3)]
    after = [row | {"score": 2} for row in reversed(before)]
    with released(tmp_path, dump_lines(before)) as (ledger, _):
        (tmp_path / "data" / "a.jsonl").write_bytes(dump_lines(after))
        pull(ledger, tmp_path / "data")
        write_release(ledger, NAME, tmp_path / "again")
        assert (tmp_path / "again" / "clean.jsonl").read_bytes() == dump_lines(after)
        assert [row["sha256"] for row in manifest(tmp_path / "again")["rows"]] == [
            hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in after
        ]


def test_no_row_of_a_file_begins_with_a_mark(tmp_path: Path) -> None:
    """Two files with one: each row is written without."""
    with released(tmp_path, b"\xef\xbb\xbf" + dump_lines(benign(1))) as (ledger, _):
        later = b"\xef\xbb\xbf" + dump_lines(benign(1, start=5))
        (tmp_path / "data" / "b.jsonl").write_bytes(later)
        pull(ledger, tmp_path / "data")
        cover(ledger, tmp_path / "more")
        write_release(ledger, NAME, tmp_path / "again")
        written = (tmp_path / "again" / "clean.jsonl").read_bytes()
        assert written == dump_lines([*benign(1), *benign(1, start=5)])


def test_what_is_held_back_counts_at_every_place(tmp_path: Path) -> None:
    """A flagged row three times is three rows in quarantine."""
    (tmp_path / "data").mkdir()
    rows = [*benign(1), *benign(2), *benign(1)]
    (tmp_path / "data" / "a.jsonl").write_bytes(dump_lines(rows) + b"{no\n{no\n")
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
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


def test_bytes_that_cannot_be_read_are_never_released(ledger: Ledger, tmp_path: Path) -> None:
    """Whatever a person decides on a broken line: a file that holds it could not be read."""
    record_decision(ledger, "b.jsonl:3", "benign")
    counts = write_release(ledger, NAME, tmp_path / "out")
    assert (counts.clean, counts.rejected) == (7, 1)
    assert b"{not json" not in (tmp_path / "out" / "clean.jsonl").read_bytes()


def test_copies_of_which_only_one_was_kept_are_released_once(tmp_path: Path) -> None:
    """Earlier versions kept one place's bytes for all places of a content: until the next pull,
    only these are released.
    """
    rows = [benign(1)[0] | {"id": number} for number in range(3)]
    with released(tmp_path, dump_lines(rows)) as (ledger, _):
        with ledger.write() as connection:
            connection.execute(update(files).values(reading='{"format": "auto"}'))
            connection.execute(update(places).values(variant=None))
        counts = write_release(ledger, NAME, tmp_path / "again")
        assert (counts.clean, counts.dropped) == (1, 2)
        assert (tmp_path / "again" / "clean.jsonl").read_bytes() == dump_lines(rows[:1])
        pull(ledger, tmp_path / "data")
        write_release(ledger, NAME, tmp_path / "later")
        assert (tmp_path / "later" / "clean.jsonl").read_bytes() == dump_lines(rows)


def test_what_is_held_back_lies_outside_of_the_folder_that_is_trained_on(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Beside it, with the release that it belongs to; both are for their owner alone."""
    write_release(ledger, NAME, tmp_path / "out")
    held = tmp_path / "out.held-back"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clean.jsonl", "manifest.json"}
    assert {path.name for path in held.iterdir()} == {
        "quarantine.jsonl",
        "rejected.jsonl",
        "release.json",
    }
    digest = hashlib.sha256((tmp_path / "out" / "manifest.json").read_bytes()).hexdigest()
    assert json.loads((held / "release.json").read_text())["manifest"] == digest
    for folder in (held, tmp_path / "out"):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_crash_between_the_two_folders_is_mended_by_releasing_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    """What is held back is moved first: of a release that never came into place it goes."""
    preview_release(ledger, NAME, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "out.part")
    (tmp_path / "out.held-back" / "mark").touch()
    write_release(ledger, NAME, tmp_path / "out")
    assert not (tmp_path / "out.held-back" / "mark").exists()
    assert (tmp_path / "out.held-back" / "quarantine.jsonl").is_file()
    assert not (tmp_path / "out.part").exists()


def test_what_another_release_held_back_is_never_written_over(
    ledger: Ledger, tmp_path: Path
) -> None:
    """A release was moved to where it is trained on; what it held back is all there is of that."""
    write_release(ledger, NAME, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "training")
    before = (tmp_path / "out.held-back" / "quarantine.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"out\.held-back already exists"):
        write_release(ledger, NAME, tmp_path / "out")
    assert (tmp_path / "out.held-back" / "quarantine.jsonl").read_bytes() == before
