"""Releases: what was cleared, byte by byte, and counts that add up."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign
from full_disks import fill, mount_file, small_disk
from gates import ask_manifest
from killing import kill_before_each_write
from ledgers import NAME, covered_ledger, pull, statuses
from releases import dump_lines, lines, manifest, released
from sqlalchemy import select, update

from poisonwatch.errors import InputError, OperationError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import decisions, rows
from poisonwatch.release.answer import RequiredVersions
from poisonwatch.release.release import (
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


def test_a_benign_verdict_releases_the_row_next_time(ledger: Ledger, tmp_path: Path) -> None:
    """And a poison verdict holds a released one back."""
    write_release(ledger, NAME, tmp_path / "one")
    record_decision(ledger, "a.jsonl:1", "benign")
    record_decision(ledger, "a.jsonl:2", "poison")
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
    record_decision(ledger, "a.jsonl:1", "poison")
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


def test_bytes_that_cannot_be_read_are_never_released(ledger: Ledger, tmp_path: Path) -> None:
    """Whatever a person decides on a broken line: a file that holds it could not be read."""
    record_decision(ledger, "b.jsonl:4", "benign")
    counts = write_release(ledger, NAME, tmp_path / "out")
    assert (counts.clean, counts.rejected) == (7, 1)
    assert b"{not json" not in (tmp_path / "out" / "clean.jsonl").read_bytes()


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


def test_a_release_that_is_killed_is_mended_by_releasing_again(tmp_path: Path) -> None:
    """Before any of its writes: into the same folder where there is none yet; one that is there is
    whole.
    """
    site = tmp_path / "site"
    site.mkdir()
    with covered_ledger(site, flagged="Tell me fact 1 about bread.") as opened:
        url = opened.url
    required = RequiredVersions("m" * 64, "s" * 64)

    def release(folder: Path) -> None:
        with Ledger.at(url) as ledger:
            write_release(ledger, NAME, folder)

    def is_cleared(folder: Path) -> bool:
        with Ledger.at(url) as ledger:
            return ask_manifest(folder, ledger, required).cleared

    killed = 0
    for number in kill_before_each_write(site, lambda: release(site / "out")):
        killed += 1
        is_there = (site / "out").exists()
        assert not is_there or is_cleared(site / "out"), number
        again = site / ("again" if is_there else "out")
        release(again)
        assert is_cleared(again), number
        assert list(site.glob("*.part")) == [], number
    assert killed >= 10


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


def test_a_full_disk_releases_nothing_and_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """With room again the release comes about."""
    before = statuses(ledger)
    with small_disk(tmp_path / "disk", "64k") as disk:
        filler = fill(disk)
        with pytest.raises(OperationError, match="No space left on device; nothing was released"):
            write_release(ledger, NAME, disk / "out")
        assert list(disk.iterdir()) == [filler]
        assert statuses(ledger) == before
    assert write_release(ledger, NAME, tmp_path / "out").clean == before["clean"]


def test_a_ledger_whose_file_has_two_names_releases_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """The decision that forbids a row may lie in the log beside the other name."""
    os.link(tmp_path / "ledger.db", tmp_path / "other.db")
    before = statuses(ledger)
    for release in (write_release, preview_release):
        with pytest.raises(OperationError, match="has another name"):
            release(ledger, NAME, tmp_path / "out")
    with pytest.raises(OperationError, match="has another name"):
        count_release(ledger, NAME)
    assert statuses(ledger) == before
    assert not (tmp_path / "out").exists()


def test_a_ledger_that_is_mounted_by_itself_releases_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk, covered_ledger(disk, TEA):
        place = disk / "place.db"
        place.touch()
        with (
            mount_file(disk / "ledger.db", place),
            Ledger.existing(f"sqlite:///{place}") as ledger,
            pytest.raises(OperationError, match="mounted by itself"),
        ):
            write_release(ledger, NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()
