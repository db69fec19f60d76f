"""A file on its way in: contents, bytes and places."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import pull, sqlite_ledger, statuses, write_two_files
from sqlalchemy import Table, func, select

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import files, places, rows


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_two_files(tmp_path / "data")
    return tmp_path / "data"


def count(ledger: Ledger, table: Table) -> int:
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_an_edited_row_is_a_new_one_that_replaces_the_old(ledger: Ledger, data: Path) -> None:
    """Row 2 is changed: one new row, linked; its old content stands nowhere any more."""
    pull(ledger, data)
    changed = benign(5)
    changed[2]["response"] = "Something else."
    write_rows(data / "a.jsonl", changed)
    assert pull(ledger, data).new == 1
    with ledger.read() as connection:
        (new,) = connection.execute(select(rows).where(rows.c.replaces.is_not(None))).all()
        old = connection.execute(select(rows).where(rows.c.row == new.replaces)).one()
    assert json.loads(new.raw)["response"] == "Something else."
    assert json.loads(old.raw) == benign(5)[2]
    assert sum(statuses(ledger).values()) == 9


def test_a_row_put_before_others_edits_none(ledger: Ledger, data: Path) -> None:
    """All positions shift by one: one new row that replaces nothing."""
    pull(ledger, data)
    write_rows(data / "a.jsonl", benign(1, start=70) + benign(5))
    assert pull(ledger, data).new == 1
    with ledger.read() as connection:
        assert (
            connection.execute(
                select(func.count()).where(rows.c.replaces.is_not(None))
            ).scalar_one()
            == 0
        )
    assert count(ledger, places) == 10


def test_rows_that_left_a_file_are_no_longer_waiting_places(ledger: Ledger, data: Path) -> None:
    """A file cut to two rows has two places."""
    pull(ledger, data)
    write_rows(data / "a.jsonl", benign(2))
    pull(ledger, data)
    with ledger.read() as connection:
        left = connection.execute(
            select(func.count()).select_from(places).join(files).where(files.c.name == "a.jsonl")
        ).scalar_one()
    assert left == 2


def test_the_same_content_elsewhere_is_one_row_with_one_place_more(
    ledger: Ledger, data: Path
) -> None:
    """A copy of a file: nothing new; both places are there."""
    pull(ledger, data)
    shutil.copy(data / "a.jsonl", data / "copy.jsonl")
    stats = pull(ledger, data)
    assert (stats.read, stats.new) == (5, 0)
    assert (count(ledger, rows), count(ledger, places)) == (9, 14)
