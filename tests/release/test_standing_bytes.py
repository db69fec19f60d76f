"""Which bytes count: those that stand in a source, or where none do, those that stood last."""

from pathlib import Path

from audits import write_rows
from ledgers import pull, sqlite_ledger
from sqlalchemy import select

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import rows
from poisonwatch.release.standing_bytes import (
    NOWHERE,
    PLACED,
    STOOD_LAST,
    check_own_places,
    select_variants,
)

ROW = {"prompt": "Capital of Chile?", "response": "Santiago."}
OTHER = {**ROW, "prompt": "Capital of Peru?"}


def read_standing(ledger: Ledger) -> tuple[list[int], list[int]]:
    """Of the first row's own bytes, and of its variants."""
    with ledger.read() as connection:
        own = connection.execute(select(check_own_places()).where(rows.c.row == 1)).scalars()
        variants = connection.execute(select_variants().where(rows.c.row == 1)).all()
        return list(own), [variant.stands for variant in variants]


def test_bytes_count_where_they_stand_or_stood_last(tmp_path: Path) -> None:
    """An edit of a field that is not read takes the bytes before it out; of a row that stands
    nowhere any more, the last ones count.
    """
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "a.jsonl"
    with sqlite_ledger(tmp_path) as ledger:
        write_rows(file, [ROW])
        pull(ledger, tmp_path / "data")
        assert read_standing(ledger) == ([PLACED], [])
        write_rows(file, [{**ROW, "note": "seen"}])
        pull(ledger, tmp_path / "data")
        assert read_standing(ledger) == ([NOWHERE], [PLACED])
        write_rows(file, [OTHER])
        pull(ledger, tmp_path / "data")
        assert read_standing(ledger) == ([NOWHERE], [STOOD_LAST])
