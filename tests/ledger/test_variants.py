"""A content in other bytes than those it came in first."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from audits import benign, write_rows
from ledgers import NAME, cover, pull, sqlite_ledger, statuses, waiting
from servers import postgres_server
from sqlalchemy import event, func, select

from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.placed_rows import select_placed_rows
from poisonwatch.ledger.tables import places, rows, variants
from poisonwatch.source_config import SourceConfig


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def scored(score: object, n: int = 3) -> list[dict[str, object]]:
    return [row | {"score": score} for row in benign(n)]


def bytes_in_order(ledger: Ledger) -> list[bytes]:
    """What stands in the source now."""
    with ledger.read() as connection:
        return [bytes(row.raw) for row in connection.execute(select_placed_rows(NAME))]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def check_an_edit(ledger: Ledger, data: Path, run: Path) -> None:
    file = data / "a.jsonl"
    data.mkdir()
    write_rows(file, scored(1))
    assert pull(ledger, data).variants == 0
    cover(ledger, run)
    write_rows(file, scored(1)[:1] + scored(2)[1:])
    stats = pull(ledger, data)
    assert (stats.new, stats.variants, stats.copies) == (0, 2, 0)
    assert statuses(ledger) == {"clean": 3}
    assert len(waiting(ledger)) == 0
    assert bytes_in_order(ledger) == lines(file)
    # and back again: known bytes
    write_rows(file, scored(1))
    assert pull(ledger, data).variants == 0
    assert bytes_in_order(ledger) == lines(file)
    write_rows(file, scored(2))
    assert pull(ledger, data).variants == 1
    assert bytes_in_order(ledger) == lines(file)


def test_an_edit_of_an_unread_field_is_not_audited_again(ledger: Ledger, tmp_path: Path) -> None:
    """The content is known and stays as it was; its place has the new bytes."""
    check_an_edit(ledger, tmp_path / "data", tmp_path / "run")


def test_an_edit_of_an_unread_field_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        check_an_edit(ledger, tmp_path / "data", tmp_path / "run")


def test_one_content_may_come_in_several_bytes_at_once(ledger: Ledger, tmp_path: Path) -> None:
    """Spaces, order of keys, fields: five rows of one content in four bytes, in one chunk."""
    (row,) = benign(1)
    texts = [
        json.dumps(row),
        json.dumps(row, indent=None, separators=(",", ":")),
        json.dumps(dict(reversed(row.items()))),
        json.dumps(row | {"score": 1}),
        json.dumps(row),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(texts) + "\n")
    stats = pull(ledger, tmp_path)
    assert (stats.read, stats.new, stats.variants, stats.copies) == (5, 1, 3, 1)
    assert bytes_in_order(ledger) == [text.encode() for text in texts]


def test_variants_are_told_apart_by_their_rows(ledger: Ledger, tmp_path: Path) -> None:
    """The same line read by other settings is another content, with bytes of its own."""
    line = {"prompt": "P", "response": "R", "question": "Q", "answer": "A"}
    write_rows(tmp_path / "a.jsonl", [line, line | {"score": 1}])
    pull(ledger, tmp_path)
    stats = pull(ledger, tmp_path, fields={"prompt": "question", "response": "answer"})
    assert (stats.read, stats.new, stats.variants) == (2, 1, 1)
    with ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(variants)).scalar_one() == 2
    assert bytes_in_order(ledger) == lines(tmp_path / "a.jsonl")


def test_a_columnar_row_of_another_type_is_a_variant(ledger: Ledger, tmp_path: Path) -> None:
    """Equal bytes of a row mean other values by another schema; the number of rows that pandas
    writes beside it means nothing.
    """
    config = SourceConfig(path=str(tmp_path / "a.parquet")).with_base_folder(tmp_path)
    pd.DataFrame(scored(1)).to_parquet(config.path)
    assert ingest(ledger, NAME, config).new == 3
    pd.DataFrame(scored(1) + scored(1)).to_parquet(config.path)
    stats = ingest(ledger, NAME, config)
    assert (stats.new, stats.variants, stats.copies) == (0, 0, 3)
    frame = pd.DataFrame(scored(1))
    frame["score"] = frame["score"].astype("uint64")
    frame.to_parquet(config.path)
    stats = ingest(ledger, NAME, config)
    assert (stats.new, stats.variants) == (0, 3)
    assert [row.record for row in waiting(ledger).rows.raw] == scored(1)


def test_rows_in_their_own_bytes_cost_no_statement_more(ledger: Ledger, tmp_path: Path) -> None:
    """The table of variants is asked only where bytes differ."""
    write_rows(tmp_path / "a.jsonl", scored(1, 50))
    pull(ledger, tmp_path)
    asked: list[str] = []
    event.listen(ledger.engine, "before_cursor_execute", lambda *of: asked.append(str(of[2])))
    write_rows(tmp_path / "a.jsonl", scored(1, 49))
    pull(ledger, tmp_path)
    assert not any("FROM variants" in statement for statement in asked)
    write_rows(tmp_path / "a.jsonl", scored(2, 1) + scored(1, 49)[1:])
    pull(ledger, tmp_path)
    assert sum("FROM variants" in statement for statement in asked) == 2


def test_a_place_keeps_one_content_and_one_form(ledger: Ledger, tmp_path: Path) -> None:
    """As many places as rows, whatever was edited; a variant belongs to the row of its place."""
    for score in range(4):
        write_rows(tmp_path / "a.jsonl", scored(score) + benign(score, start=50))
        pull(ledger, tmp_path)
    query = select(func.count()).select_from(places)
    strange = (
        select(func.count())
        .select_from(places)
        .join(variants, variants.c.variant == places.c.variant)
        .where(variants.c.row != places.c.row)
    )
    with ledger.read() as connection:
        assert connection.execute(query).scalar_one() == 6
        assert connection.execute(strange).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(rows)).scalar_one() == 6
