"""What a ledger knows of rows that somebody holds."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audits import benign, write_rows
from gates import NEEDED, ONE
from ledgers import NAME, cover, pull, sqlite_ledger
from sqlalchemy import select

from poisonwatch.errors import InputError
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.row_bytes import identify_bytes
from poisonwatch.ledger.tables import rows
from poisonwatch.release.answer import RequiredVersions
from poisonwatch.release.known_rows import KnownRow, KnownRows
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import open_source

ROW = benign(1)[0]
EDITED = ROW | {"score": 1}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """One content in two bytes, the second of them twice."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "a.jsonl", [ROW, EDITED, EDITED])
    with sqlite_ledger(tmp_path) as opened:
        pull(opened, tmp_path / "data")
        cover(opened, tmp_path / "run", version=ONE)
        yield opened


def hash_row(row: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(row).encode()).digest()


def find_id(ledger: Ledger) -> str:
    """The id of a ledger's only content."""
    with ledger.read() as connection:
        return bytes(connection.execute(select(rows.c.id)).scalar_one()).hex()


def load(known: KnownRows, *asked: dict[str, Any]) -> KnownRow:
    """A ledger's only content, in these bytes."""
    id = find_id(known.ledger)
    return known.load([id], [hash_row(row) for row in asked])[id]


def test_a_content_is_known_in_the_bytes_that_are_asked_for(ledger: Ledger) -> None:
    """Its own, and its variants; others are not found, by digest or by columns."""
    content = load(KnownRows(ledger, NEEDED), ROW, EDITED)
    assert (content.status, content.decided, content.flagged) == ("clean", None, 0)
    for row in (ROW, EDITED):
        found = content.find_digest(hash_row(row))
        assert found is not None
        assert found.schema is None
        assert content.find_bytes(identify_bytes(json.dumps(row).encode(), None)) == found
        assert content.find_bytes((found.digest, b"columns")) is None
    assert content.find_digest(hash_row(ROW | {"score": 2})) is None
    assert KnownRows(ledger, NEEDED).load(["0" * 64], [hash_row(ROW)]) == {}


def test_columns_are_compared_without_what_wrote_them(tmp_path: Path) -> None:
    """Pandas' index is no part of a row; another type of a column is."""
    frame = pd.DataFrame([EDITED])
    frame.to_parquet(tmp_path / "a.parquet")
    config = SourceConfig(path=str(tmp_path / "a.parquet"))
    with sqlite_ledger(tmp_path) as ledger:
        ingest(ledger, NAME, config)
        known = KnownRows(ledger, NEEDED)
        id = find_id(ledger)
        for written, is_known in (
            (frame.set_axis([7], axis=0), True),
            (frame.astype({"score": "uint64"}), False),
        ):
            (tmp_path / "a.parquet").unlink()
            written.to_parquet(tmp_path / "a.parquet", index=False)
            (file,) = open_source(config).units
            (row,) = file.read()
            key = identify_bytes(row.raw, file.schema)
            found = known.load([id], [key[0]])[id].find_bytes(key)
            assert (found is not None) == is_known
            assert known.find_schema(id, key[0]) is not None


def test_rows_are_surplus_beyond_the_places_of_their_bytes(ledger: Ledger) -> None:
    """Counted for each bytes of their own."""
    known = KnownRows(ledger, NEEDED)
    content = load(known, ROW, EDITED)
    own, edited = (content.find_digest(hash_row(row)) for row in (ROW, EDITED))
    assert own
    assert edited
    assert [known.is_surplus(content, own) for _ in range(3)] == [False, True, True]
    assert [known.is_surplus(content, edited) for _ in range(3)] == [False, False, True]


def test_of_two_audits_the_source_that_has_more_places_counts(
    ledger: Ledger, tmp_path: Path
) -> None:
    """They are not added: nobody trains on both."""
    ingest(ledger, "other", SourceConfig(path=str(tmp_path / "data")))
    known = KnownRows(ledger, NEEDED)
    content = load(known, EDITED)
    edited = content.find_digest(hash_row(EDITED))
    assert edited
    assert [known.is_surplus(content, edited) for _ in range(3)] == [False, False, True]


def test_bytes_count_where_they_stand_now_or_stood_last(ledger: Ledger, tmp_path: Path) -> None:
    """In a source; in none any more, where they stood last: what an edit superseded stays out."""

    def stand() -> list[bool]:
        content = load(KnownRows(ledger, NEEDED), ROW, EDITED)
        return [content.find_digest(hash_row(row)) is not None for row in (ROW, EDITED)]

    file = tmp_path / "data" / "a.jsonl"
    assert stand() == [True, True]
    write_rows(file, [EDITED])
    pull(ledger, tmp_path / "data")
    assert stand() == [False, True]
    write_rows(file, [])
    pull(ledger, tmp_path / "data")
    assert stand() == [False, True]
    for written in ([EDITED], [ROW], []):
        write_rows(file, written)
        pull(ledger, tmp_path / "data")
    assert stand() == [True, False]


def test_no_version_clears_nothing_and_two_are_one_too_many(ledger: Ledger, tmp_path: Path) -> None:
    """Under a version that nothing was audited by, a row was not looked at."""
    other = RequiredVersions("c" * 64)
    known = KnownRows(ledger, other)
    assert (known.versions.met, known.required) == ((), other)
    assert load(known).flagged is None
    assert KnownRows(ledger, RequiredVersions("a" * 8)).required == NEEDED
    cover(ledger, tmp_path / "near", version=Version("a" * 63 + "0", ONE.sentinels), again=True)
    with pytest.raises(InputError, match="2 versions"):
        KnownRows(ledger, RequiredVersions("a" * 8))
