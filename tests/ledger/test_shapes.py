"""How the bytes of rows are read again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import write_rows
from ledgers import append, pull, sqlite_ledger, waiting

from poisonwatch.formats.format import Format
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.shapes import ShapeTable, load_format


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def test_a_shape_has_one_number_and_gives_its_format_back(ledger: Ledger) -> None:
    """Another schema is another shape; where no row could be read there is no format."""
    format = Format("prompt", {"prompt": "question"}, seen=("prompt",))
    with ledger.write() as connection:
        number = ShapeTable(connection).find_or_add(format, None)
        table = ShapeTable(connection)
        assert table.find_or_add(format, None) == table.find_or_add(format, None) == number
        other = table.find_or_add(format, b"schema")
        nothing = table.find_or_add(None, None)
        assert (table.schema(number), table.schema(other)) == (None, b"schema")
        assert len({table.digest(shape) for shape in (number, other, nothing)}) == 3
        assert len({number, other, nothing}) == 3
        assert load_format(connection, number) == load_format(connection, other) == format
        assert load_format(connection, nothing) is None
        assert load_format(connection, None) is None


def test_a_file_that_grows_is_read_on_as_it_began(ledger: Ledger, tmp_path: Path) -> None:
    """Appended rows of another format are read by their own fields, but those that fit the first
    format are read by it: as they are when the file is read whole.
    """
    turns = [{"role": "user", "content": "M"}, {"role": "assistant", "content": "N"}]
    both = {"text": "T", "prompt": "P1", "response": "R", "messages": None}
    file = tmp_path / "a.jsonl"
    write_rows(file, [{"prompt": "P", "response": "R"}])
    pull(ledger, tmp_path)
    append(file, [both, {"messages": turns}])
    pull(ledger, tmp_path)
    append(file, [both | {"prompt": "P2", "messages": turns}])
    stats = pull(ledger, tmp_path)
    assert (stats.read, stats.new) == (1, 1)
    batch = waiting(ledger)
    found = [draft.text(assistant=False) for draft in batch.rows.drafts]
    assert found == ["P", "P1", "M", "P2"]
    # Read whole, the same contents.
    file.write_text("\n" + file.read_text())
    assert pull(ledger, tmp_path).new == 0
