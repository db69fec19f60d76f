"""What stands at the places of a source, and how often bytes are known."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import NAME, pull, sqlite_ledger
from servers import postgres_server
from sqlalchemy import select

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.placed_rows import select_placed_rows
from poisonwatch.ledger.tables import rows


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


ROW, OTHER = benign(2)
SCORED: Mapping[str, object] = {**ROW, "score": 1}


def placed(ledger: Ledger, name: str = NAME) -> list[tuple[object, ...]]:
    with ledger.read() as connection:
        found = connection.execute(select_placed_rows(name)).all()
    return [(row.name, row.position, row.row, row.nth, row.nth_content) for row in found]


def line(row: Mapping[str, object]) -> bytes:
    import json

    return json.dumps(row).encode()


def check_order(ledger: Ledger, data: Path) -> None:
    data.mkdir()
    write_rows(data / "b.jsonl", [ROW, SCORED])
    write_rows(data / "a.jsonl", [SCORED, OTHER, SCORED])
    pull(ledger, data)
    assert placed(ledger) == [
        ("a.jsonl", 0, 1, 1, 1),
        ("a.jsonl", 1, 2, 1, 1),
        ("a.jsonl", 2, 1, 2, 2),
        ("b.jsonl", 0, 1, 1, 3),
        ("b.jsonl", 1, 1, 3, 4),
    ]
    assert placed(ledger, "another") == []
    with ledger.read() as connection:
        found = [bytes(row.raw) for row in connection.execute(select_placed_rows(NAME))]
    assert found == [line(row) for row in (SCORED, OTHER, SCORED, ROW, SCORED)]


def test_places_come_in_order_with_their_bytes(ledger: Ledger, tmp_path: Path) -> None:
    """By file and position; each says how often its bytes, and its content, stood before."""
    check_order(ledger, tmp_path / "data")


def test_places_come_in_order_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        check_order(ledger, tmp_path / "data")


def test_files_that_are_gone_have_no_places_now(ledger: Ledger, tmp_path: Path) -> None:
    """A renamed file's rows stand once."""
    write_rows(tmp_path / "a.jsonl", [ROW, OTHER])
    pull(ledger, tmp_path)
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    pull(ledger, tmp_path)
    assert [name for name, *_ in placed(ledger)] == ["b.jsonl"] * 2


def test_bytes_that_stood_last_are_remembered(ledger: Ledger, tmp_path: Path) -> None:
    """Of a row that has several, at each edit, and when it goes; of one in its own, nothing is
    to be written down.
    """

    def remembered(*written: Mapping[str, object]) -> list[tuple[int, int | None]]:
        write_rows(tmp_path / "a.jsonl", list(written))
        pull(ledger, tmp_path)
        with ledger.read() as connection:
            found = connection.execute(select(rows.c.row, rows.c.last_variant).order_by("row"))
            return list(found.tuples())

    assert remembered(ROW, OTHER) == [(1, None), (2, None)]
    assert remembered(SCORED, OTHER) == [(1, None), (2, None)]
    assert remembered(OTHER) == [(1, 1), (2, None)]
    assert remembered(SCORED, OTHER) == [(1, 1), (2, None)]
    assert remembered(ROW, OTHER) == [(1, 1), (2, None)]
    assert remembered() == [(1, None), (2, None)]
