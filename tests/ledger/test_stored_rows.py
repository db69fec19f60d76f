"""Rows of a batch are read from the ledger when they are looked at, some at a time."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import ONE, pull, sqlite_ledger, waiting, write_two_files
from sqlalchemy import event, select, update

from poisonwatch.errors import OperationError
from poisonwatch.ledger import stored_rows
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import rows, shapes


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine pulled rows: a.jsonl has 5, b.jsonl 4, the last of them broken."""
    write_two_files(tmp_path / "data")
    with sqlite_ledger(tmp_path) as opened:
        pull(opened, tmp_path / "data")
        yield opened


@pytest.mark.parametrize("at_a_time", [1, 3, 5, 100])
def test_rows_are_the_same_however_many_are_read_at_a_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    """In the order of files and positions; alone, in slices and one after the other."""
    monkeypatch.setattr(stored_rows, "ROWS_PER_READ", at_a_time)
    batch = waiting(ledger)
    found = list(batch.rows)
    assert [(raw.source, raw.position) for raw, _ in found] == [
        *(("a.jsonl", i) for i in range(5)),
        *(("b.jsonl", i) for i in range(4)),
    ]
    assert found[-1][1].problem is not None
    assert list(batch.rows.raw) == [raw for raw, _ in found]
    assert list(batch.rows.drafts) == [draft for _, draft in found]
    assert [batch.rows.raw[i] for i in range(-9, 0)] == list(batch.rows.raw)
    for places in (slice(2, 7), slice(None, None, 2), slice(20, 30)):
        assert list(batch.rows.drafts[places]) == [draft for _, draft in found][places]
    with pytest.raises(IndexError):
        batch.rows.raw[9]


def test_few_rows_are_in_memory_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row costs one read, not nine; choosing reads no bytes at all."""
    monkeypatch.setattr(stored_rows, "ROWS_PER_READ", 2)
    statements: list[str] = []

    @event.listens_for(ledger.engine, "before_cursor_execute")
    def note(*called: object) -> None:
        statements.append(str(called[2]))

    batch = waiting(ledger)
    assert not [text for text in statements if " AS raw" in text]
    next(iter(batch.rows))
    assert len([text for text in statements if " AS raw" in text]) == 1
    list(batch.rows)
    assert len([text for text in statements if " AS raw" in text]) == 1 + 6


def test_the_ledger_may_be_written_while_rows_are_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction is left open between two reads."""
    monkeypatch.setattr(stored_rows, "ROWS_PER_READ", 2)
    for _ in waiting(ledger).rows:
        with ledger.write() as connection:
            connection.execute(update(rows).values(status="pending"))


def test_a_place_names_its_row(ledger: Ledger) -> None:
    """find_number(source, position) = numbers[i] of the row that stands there."""
    batch = waiting(ledger)
    for raw, number in zip(batch.rows.raw, batch.numbers, strict=True):
        assert batch.find_number(raw.source, raw.position) == number
    for nowhere in (("a.jsonl", 5), ("c.jsonl", 0), ("b.jsonl", -1)):
        with pytest.raises(KeyError):
            batch.find_number(*nowhere)


def test_rows_that_changed_since_are_not_mistaken(ledger: Ledger, tmp_path: Path) -> None:
    """Another row at a place is an error, never another row of the batch."""
    batch = waiting(ledger, ONE)
    write_rows(tmp_path / "data" / "a.jsonl", benign(5, start=40))
    pull(ledger, tmp_path / "data")
    with pytest.raises(OperationError, match=r"row 0 of a\.jsonl changed .* run the audit again"):
        list(batch.rows)
    assert {raw.source for raw in batch.rows.raw[5:]} == {"b.jsonl"}


@pytest.mark.parametrize("what", ["bytes", "shape"])
def test_a_row_that_is_not_what_was_pulled_is_refused(ledger: Ledger, what: str) -> None:
    """Whoever puts other bytes in a row's place while an audit reads it, or has them read in
    another way, gets neither cleared.
    """
    first = next(iter(waiting(ledger).rows))[0]
    assert first.record is not None
    other = json.dumps({**first.record, "response": "Obey me."}).encode()
    with ledger.write() as connection:
        id = bytes.fromhex(str(first.content_id))
        if what == "bytes":
            values = {"raw": other, "digest": hashlib.sha256(other).digest()}
            connection.execute(update(rows).where(rows.c.id == id).values(values))
        else:
            format = json.loads(connection.execute(select(shapes.c.format)).scalar_one())
            format["fields"] = format["met"] = {"prompt": "response", "response": "prompt"}
            connection.execute(update(shapes).values(format=json.dumps(format)))
    raw, draft = next(iter(waiting(ledger).rows))
    assert raw.record is None
    assert draft.problem == stored_rows.CHANGED_BYTES


def test_formats_are_those_of_the_files(ledger: Ledger) -> None:
    """By name, as reading a source tells them."""
    formats = waiting(ledger).rows.formats
    assert sorted(formats) == ["a.jsonl", "b.jsonl"]
    assert {format.name for format in formats.values()} == {"prompt"}
