"""What stands at the places of a source, and how often bytes are known."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import NAME, pull, source
from servers import postgres_server

from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.placed_rows import load_known_bytes, select_placed_rows
from poisonwatch.ledger.row_bytes import identify_bytes


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


ROW, OTHER = benign(2)
SCORED: Mapping[str, object] = {**ROW, "score": 1}


def placed(ledger: Ledger, name: str = NAME) -> list[tuple[object, ...]]:
    with ledger.read() as connection:
        found = connection.execute(select_placed_rows(name)).all()
    return [(row.name, row.position, row.row, row.nth, row.nth_content) for row in found]


def known(ledger: Ledger, *raws: bytes) -> list[int]:
    """How often each of these bytes of ROW is known, 0 where it is not."""
    with ledger.read() as connection:
        (id,) = {bytes(row.id).hex() for row in connection.execute(select_placed_rows("first"))}
        keys = [identify_bytes(raw, None) for raw in raws]
        found = load_known_bytes(connection, [id, "0" * 64], [digest for digest, _ in keys])
    assert found.keys() <= {id}
    return [found.get(id, {}).get(key, 0) for key in keys]


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


def test_bytes_are_known_as_often_as_they_stand(ledger: Ledger, tmp_path: Path) -> None:
    """Of two audits' sources the more frequent one counts, and edits follow; a file that is gone
    counts as long as no other holds the bytes, and what stood once counts once.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write_rows(first / "a.jsonl", [ROW, SCORED, ROW])
    write_rows(second / "a.jsonl", [SCORED] * 3)
    ingest(ledger, "first", source(first))
    assert known(ledger, line(ROW), line(SCORED), line(OTHER)) == [2, 1, 0]
    ingest(ledger, "second", source(second))
    assert known(ledger, line(ROW), line(SCORED)) == [2, 3]
    (second / "a.jsonl").rename(second / "b.jsonl")
    ingest(ledger, "second", source(second))
    assert known(ledger, line(SCORED)) == [3]
    write_rows(second / "b.jsonl", [OTHER])
    ingest(ledger, "second", source(second))
    assert known(ledger, line(SCORED)) == [1]
    write_rows(first / "a.jsonl", [ROW])
    ingest(ledger, "first", source(first))
    # the file of the second source that is gone holds them three times
    assert known(ledger, line(ROW), line(SCORED)) == [1, 3]


def test_bytes_that_stand_nowhere_are_known_once(ledger: Ledger, tmp_path: Path) -> None:
    """After an edit."""
    write_rows(tmp_path / "a.jsonl", [SCORED, SCORED])
    ingest(ledger, "first", source(tmp_path))
    write_rows(tmp_path / "a.jsonl", [ROW, ROW])
    ingest(ledger, "first", source(tmp_path))
    assert known(ledger, line(ROW), line(SCORED)) == [2, 1]
