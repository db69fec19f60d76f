"""What a pull read is on record, and nobody changes what stands where unseen."""

import gzip
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_rows
from ledgers import NAME, append, pull, sqlite_ledger, write_two_files
from older_ledgers import make_older_ledger, split_statements
from servers import postgres_server
from sqlalchemy import Table, func, select
from tampering import LostSigner, make_signer, tamper

from poisonwatch.errors import SourceError
from poisonwatch.failures import Attempts
from poisonwatch.ledger.chain_tables import signatures
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.pull_records import (
    PULL,
    PlaceDigest,
    RecordedFile,
    Span,
    check_pulls,
    read_recorded_files,
)
from poisonwatch.ledger.records import read_records, verify_records
from poisonwatch.ledger.tables import places, rows
from poisonwatch.source_config import SourceConfig

FILES_OF_0007 = """
    INSERT INTO shapes (shape, digest, format) VALUES (1, 'the shape', 'null')
    INSERT INTO files (file, audit, name, fingerprint, mark, reading, rows, read_at, shape)
        VALUES (1, 'tiny', 'a.jsonl', 'print', 'mark', '{}', 2, '', 1),
        (2, 'tiny', 'empty.jsonl', 'print', NULL, '{}', 0, '', NULL),
        (3, 'other', 'a.jsonl', NULL, NULL, '{}', 1, '', 1)
    INSERT INTO rows (row, id, raw, digest, shape, status, first_seen)
        VALUES (1, BYTES('1'), BYTES('x'), BYTES('d'), 1, 'clean', '')
    INSERT INTO variants (variant, row, raw, digest, shape, first_seen)
        VALUES (1, 1, BYTES('y'), BYTES('e'), 1, '')
    INSERT INTO places VALUES (1, 0, 1, 'line 1', NULL), (1, 1, 1, 'line 2', 1),
        (3, 0, 1, 'line 1', NULL)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two files, and a third with other bytes of a content of the first."""
    folder = tmp_path / "data"
    write_two_files(folder)
    write_rows(folder / "c.jsonl", [{**benign(1)[0], "note": "another"}])
    return folder


@pytest.fixture
def ledger(tmp_path: Path, data: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        pull(opened, data)
        yield opened


def found(ledger: Ledger, numbers: list[int] | None = None) -> list[str]:
    """What differs from the records, in words."""
    with ledger.read() as connection:
        assert verify_records(connection) == []
        return [difference.words for difference in check_pulls(connection, numbers)]


def count(ledger: Ledger, table: Table) -> int:
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def entries(ledger: Ledger) -> list[list[dict[str, Any]]]:
    """What each record of a pull says of files."""
    with ledger.read() as connection:
        made = read_records(connection, PULL)
        return [list(record.statement.predicate["files"]) for record in made]


def test_a_digest_is_over_positions_contents_and_bytes() -> None:
    """In chunks of any size; no two columns of it can be exchanged."""
    read = [(0, b"a" * 32, b"b" * 32), (1, b"c" * 32, b"d" * 32)]
    whole, parts = PlaceDigest(), PlaceDigest()
    whole.add(read)
    for place in read:
        parts.add([place])
    said = b"".join(
        [bytes(8), b"a" * 32, b"b" * 32, bytes(7) + b"\1", b"c" * 32, b"d" * 32],
    )
    assert whole.hexdigest() == parts.hexdigest() == hashlib.sha256(said).hexdigest()


def test_a_file_grows_by_spans_and_is_read_anew_as_one() -> None:
    """What a record repeats says nothing new."""
    entry = {"mark": "1", "rows": 2, "from": 0, "places": "d"}
    known = RecordedFile()
    assert known.is_changed_by(entry)
    known.add(entry)
    assert not known.is_changed_by(entry)
    known.add({"mark": "2", "rows": 5, "from": 2, "places": "e"})
    assert known.spans == [Span(0, 2, "d"), Span(2, 5, "e")]
    known.add({"mark": "3", "rows": 5, "from": 5, "places": "nothing"})
    assert known.said == {"mark": "3", "rows": 5}
    assert len(known.spans) == 2
    known.add({"gone_at": "today"})
    assert known.said == {"mark": "3", "rows": 5, "gone_at": "today"}
    known.add({"mark": "4", "rows": 1, "from": 0, "places": "f", "gone_at": None})
    assert known.spans == [Span(0, 1, "f")]


def test_what_changed_is_on_record_and_what_did_not_is_not(ledger: Ledger, data: Path) -> None:
    """Three small files in one record; then a file that grew, by its new rows alone; then one that
    changed and one that is gone.
    """
    (first,) = entries(ledger)
    assert [(entry["name"], entry["from"], entry["rows"]) for entry in first] == [
        ("a.jsonl", 0, 5),
        ("b.jsonl", 0, 4),
        ("c.jsonl", 0, 1),
    ]
    pull(ledger, data)
    assert len(entries(ledger)) == 1
    append(data / "a.jsonl", benign(2, start=50))
    pull(ledger, data)
    assert [(entry["name"], entry["from"], entry["rows"]) for entry in entries(ledger)[1]] == [
        ("a.jsonl", 5, 7)
    ]
    assert found(ledger) == []
    changed = benign(5)
    changed[2]["response"] = "Something else."
    write_rows(data / "a.jsonl", changed)
    (data / "c.jsonl").unlink()
    pull(ledger, data)
    _, _, edited, gone = entries(ledger)
    assert [(entry["name"], entry["from"], entry["rows"]) for entry in edited] == [
        ("a.jsonl", 0, 5)
    ]
    assert [entry["name"] for entry in gone] == ["c.jsonl"]
    assert found(ledger) == []
    write_rows(data / "c.jsonl", benign(1))
    pull(ledger, data)
    assert found(ledger) == []


TAMPERINGS = {
    # what is changed, and what the difference is said to be about
    "a place leads to another row": (
        "UPDATE places SET row = 2 WHERE file = 1 AND position = 0",
        "file a.jsonl of audit tiny: places",
    ),
    "a place is gone": ("DELETE FROM places WHERE file = 1 AND position = 4", "places"),
    "a place is moved": (
        "UPDATE places SET position = 9 WHERE file = 1 AND position = 4",
        "places",
    ),
    "a place is added": (
        "INSERT INTO places VALUES (1, 5, 1, 'line 6', NULL)",
        "expected none, found rows 5 to 6",
    ),
    "a variant stands elsewhere": (
        "UPDATE places SET variant = 1 WHERE file = 1 AND position = 0",
        "file a.jsonl of audit tiny: places",
    ),
    "a variant does not stand": ("UPDATE places SET variant = NULL WHERE file = 3", "c.jsonl"),
    "a variant of another row": ("UPDATE variants SET row = 2", "c.jsonl"),
    "a variant is gone": ("DELETE FROM variants", "c.jsonl"),
    "other bytes of a row": ("UPDATE rows SET digest = randomblob(32) WHERE row = 1", "a.jsonl"),
    "other bytes of a variant": ("UPDATE variants SET digest = randomblob(32)", "c.jsonl"),
    "another content": ("UPDATE rows SET id = randomblob(32) WHERE row = 1", "a.jsonl"),
    "no position": ("UPDATE places SET position = 'x' WHERE file = 1 AND position = 4", "places"),
    "a negative position": (
        "UPDATE places SET position = -1 WHERE file = 1 AND position = 4",
        "places",
    ),
    "read on from elsewhere": ("UPDATE files SET mark = '9' WHERE file = 1", "a.jsonl of audit"),
    "not to be read again": ("UPDATE files SET fingerprint = 'x' WHERE file = 1", "fingerprint"),
    "read by other settings": ("UPDATE files SET reading = '{}' WHERE file = 1", "settings it was"),
    "fewer rows": ("UPDATE files SET rows = 1 WHERE file = 1", "number of rows"),
    "another format": ("UPDATE files SET shape = NULL WHERE file = 1", "format"),
    "another format under its number": ("UPDATE shapes SET digest = digest || 'x'", "format"),
    "a file that is said to be gone": ("UPDATE files SET gone_at = 'x' WHERE file = 1", "gone"),
    "a file of another audit": ("UPDATE files SET audit = 'x' WHERE file = 1", "audit x: expected"),
    "a file of another name": (
        "UPDATE files SET name = 'x' WHERE file = 1",
        "file x of audit tiny",
    ),
    "a file that nobody pulled": (
        "INSERT INTO files (audit, name, reading, rows, read_at) VALUES ('tiny', 'x', '', 0, '')",
        "file x of audit tiny: expected a record of what was pulled, found none",
    ),
    "a file that is not there": (
        "DELETE FROM files WHERE file = 2",
        "file b.jsonl of audit tiny: expected a file of the ledger, found none",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_whatever_is_changed_is_named(ledger: Ledger, name: str) -> None:
    """In a line that no row's text is in."""
    statement, says = TAMPERINGS[name]
    assert found(ledger) == []
    assert tamper(ledger, statement) > 0
    lines = found(ledger)
    assert any(says in line for line in lines), lines
    assert "Fact" not in "".join(lines)


def test_rows_are_asked_about_by_the_files_that_hold_them(ledger: Ledger) -> None:
    """What is changed elsewhere is none of theirs; a place that is put in is."""
    with ledger.read() as connection:
        of_b = select(places.c.row).where(places.c.file == 2)
        numbers = list(connection.execute(of_b).scalars())
        one = connection.execute(select(rows.c.row).where(rows.c.row == 1)).scalar_one()
    tamper(ledger, "UPDATE files SET mark = '9' WHERE file = 1")
    assert found(ledger, numbers) == []
    assert len(found(ledger, [one])) == 1
    tamper(ledger, f"INSERT INTO places VALUES (2, 50, {one}, 'line 6', NULL)")
    assert len(found(ledger, numbers)) == 1


def test_a_pull_does_not_bless_what_was_changed_before_it(ledger: Ledger, data: Path) -> None:
    """Of a file that grows, what was there before is on record as it was."""
    tamper(ledger, "UPDATE places SET row = 2 WHERE file = 1 AND position = 0")
    append(data / "a.jsonl", benign(2, start=50))
    pull(ledger, data)
    (line,) = found(ledger)
    assert "file a.jsonl of audit tiny: places: expected rows 0 to 5" in line


def test_a_file_that_is_read_anew_is_as_its_source_has_it(ledger: Ledger, data: Path) -> None:
    """Also where somebody had moved its rows in the ledger."""
    tamper(ledger, "UPDATE places SET row = 2 WHERE file = 1 AND position = 0")
    tamper(ledger, "DELETE FROM places WHERE file = 1 AND position = 3")
    write_rows(data / "a.jsonl", benign(4))
    pull(ledger, data)
    assert found(ledger) == []


@pytest.mark.parametrize("broken", ["0.jsonl.gz", "2.jsonl.gz"])
def test_a_file_that_cannot_be_read_leaves_those_before_it_on_record(
    tmp_path: Path, broken: str
) -> None:
    """Nothing of itself is in the ledger, though thousands of its rows were read; the next pull
    goes on with it.
    """
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("1.jsonl", "3.jsonl"):
        write_rows(folder / name, benign(3, start=10_000 * int(name[0])))
    lines = [json.dumps({"prompt": f"{i}", "response": f"{i * i}"}) for i in range(5000)]
    whole = gzip.compress("\n".join(lines).encode())
    (folder / broken).write_bytes(whole[: len(whole) * 3 // 4])
    source = SourceConfig(path=str(folder))
    with sqlite_ledger(tmp_path) as ledger:
        with pytest.raises(SourceError, match=broken):
            ingest(ledger, NAME, source)
        names = [[Path(entry["name"]).name for entry in some] for some in entries(ledger)]
        assert names == ([] if broken[0] == "0" else [["1.jsonl"]])
        assert count(ledger, rows) == 3 * len(names)
        assert found(ledger) == []
        (folder / broken).write_bytes(whole)
        stats = ingest(ledger, NAME, source)
        assert stats.new == count(ledger, rows) - 3 * len(names)
        assert count(ledger, rows) == 5006
        assert found(ledger) == []


KILLED = """
import os, signal, sys
from poisonwatch.ledger import intake
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.source_config import SourceConfig

def append_and_die(*arguments):
    number = append(*arguments)
    if sys.argv[3] == "before" or count:
        os.kill(os.getpid(), signal.SIGKILL)
    count.append(number)
    return number

count = []
append, intake.append_pull_records = intake.append_pull_records, append_and_die
intake.LONGEST_GROUP_S = 0
with Ledger.at(sys.argv[1]) as ledger:
    intake.ingest(ledger, "tiny", SourceConfig(path=sys.argv[2]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pull_that_is_killed_leaves_no_file_without_its_record(tmp_path: Path, when: str) -> None:
    """In its first transaction, and in its second: the next pull goes on where the chain ends."""
    folder = tmp_path / "data"
    write_two_files(folder)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    killed = subprocess.run([sys.executable, "-c", KILLED, url, str(folder), when], check=False)
    assert killed.returncode == -signal.SIGKILL
    with Ledger.at(url) as ledger:
        names = [Path(entry["name"]).name for (entry,) in entries(ledger)]
        assert names == ([] if when == "before" else ["a.jsonl"])
        assert found(ledger) == []
        ingest(ledger, NAME, SourceConfig(path=str(folder)))
        assert count(ledger, rows) == 9
        assert found(ledger) == []


def test_records_of_pulls_are_signed_and_a_lost_key_costs_no_row(
    tmp_path: Path, data: Path
) -> None:
    """It is told."""
    source, attempts = SourceConfig(path=str(data)), Attempts()
    with sqlite_ledger(tmp_path, signer=make_signer()) as ledger:
        ingest(ledger, NAME, source, attempts=attempts)
        (data / "a.jsonl").unlink()
        ingest(ledger, NAME, source, attempts=attempts)
        assert attempts.failures == []
        with ledger.read() as connection:
            signed = connection.execute(select(signatures.c.record)).scalars().all()
            assert len(signed) == len(list(read_records(connection))) == 2
        ledger.signer = LostSigner()
        write_rows(data / "a.jsonl", benign(2, start=70))
        assert ingest(ledger, NAME, source, attempts=attempts).new == 2
        (failure,) = attempts.failures
        assert (failure.outcome, failure.why) == ("not signed", "the key is gone")
        assert found(ledger) == []


def test_many_small_files_share_a_record(tmp_path: Path) -> None:
    """Of hundreds of files there are few records, as long as a transaction may take; all are found
    gone by one.
    """
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(300):
        write_rows(folder / f"{i:04}.jsonl", benign(1, start=i))
    source = SourceConfig(path=str(folder))
    with sqlite_ledger(tmp_path) as ledger:
        ingest(ledger, NAME, source)
        told = entries(ledger)
        assert 2 <= len(told) < 100
        assert sum(map(len, told)) == 300
        assert max(map(len, told)) <= 256
        shutil.rmtree(folder)
        write_rows(tmp_path / "data.jsonl", benign(1))
        ingest(ledger, NAME, SourceConfig(path=str(tmp_path / "data.jsonl")))
        assert [len(some) for some in entries(ledger)[len(told) :]] == [1, 256, 44]
        assert found(ledger) == []


def check_adoption(url: str) -> None:
    """Files that were pulled before the chain are in it as they were then."""
    cast = "CAST({} AS BLOB)" if url.startswith("sqlite") else "{}::bytea"
    text = FILES_OF_0007
    for letter in "1xyde":
        text = text.replace(f"BYTES('{letter}')", cast.format(f"'{letter}'"))
    make_older_ledger(url, "0007", split_statements(text))
    for _ in range(2):
        with Ledger.at(url) as ledger:
            assert found(ledger) == []
            with ledger.read() as connection:
                kinds = [(made.kind, made.item) for made in read_records(connection)]
                recorded = read_recorded_files(connection)
            assert kinds == [("adopted", "files of tiny"), ("adopted", "files of other")]
            assert set(recorded) == {
                ("other", "a.jsonl"),
                ("tiny", "a.jsonl"),
                ("tiny", "empty.jsonl"),
            }
            assert recorded["tiny", "a.jsonl"].said["shape"] == "the shape"
    with Ledger.at(url) as ledger:
        tamper(ledger, "UPDATE places SET variant = NULL WHERE file = 1")
        (line,) = found(ledger)
        assert "file a.jsonl of audit tiny: places" in line


def test_files_that_are_older_than_the_chain_are_adopted(tmp_path: Path) -> None:
    """Once."""
    check_adoption(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_postgresql_keeps_the_same_records(tmp_path: Path, data: Path) -> None:
    """What is adopted, pulled, grown, changed, gone and tampered with."""
    with postgres_server() as url:
        check_adoption(url)
    with postgres_server() as url, Ledger.at(url, signer=make_signer()) as ledger:
        pull(ledger, data)
        append(data / "a.jsonl", benign(2, start=50))
        write_rows(data / "b.jsonl", benign(2, start=11))
        (data / "c.jsonl").unlink()
        pull(ledger, data)
        assert len(entries(ledger)) >= 3
        assert found(ledger) == []
        for statement, says in (
            ("UPDATE places SET row = 2 WHERE file = 1 AND position = 0", "a.jsonl"),
            ("UPDATE files SET gone_at = NULL", "c.jsonl"),
        ):
            assert tamper(ledger, statement) > 0
            assert says in "".join(found(ledger))
