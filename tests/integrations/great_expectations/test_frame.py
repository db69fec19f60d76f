"""The table that expectations speak about: a line a row, a cell a fact."""

import json
from pathlib import Path

from row_tables import build_file_table, tabulate

from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import SourceRows, read_source


def test_only_the_columns_that_are_asked_for_are_there(tmp_path: Path) -> None:
    """And the number that names the row."""
    assert set(
        build_file_table(
            tmp_path, [{"prompt": "p", "response": "r"}], frozenset({"turns", "record.x"})
        ).readable
    ) == {
        "_row",
        "turns",
        "record.x",
    }


def test_unreadable_rows_have_a_problem_and_no_line(tmp_path: Path) -> None:
    """Numbers name the row, not the line."""
    found = build_file_table(
        tmp_path, ["{broken", {"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r"}]
    )
    assert found.readable["_row"].tolist() == [1, 2]
    assert found.detail(0, "problem") == found.problems["problem"].iloc[0]
    assert found.detail(1, "problem") is None
    assert found.detail(2, "copy_of") == "rows-7.jsonl, line 2"
    assert [example is None for example in found.examples] == [True, False, False]


def test_an_empty_file_of_rows_is_a_table_of_no_lines() -> None:
    """With the same columns."""
    found = tabulate(SourceRows([], [], {}))
    assert set(found.readable) == {"_row", *EXPECTATION_COLUMNS}
    assert (len(found.readable), len(found.problems), found.examples) == (0, 0, [])


def test_rows_may_begin_at_any_number(tmp_path: Path) -> None:
    """A table is a piece of a batch: numbers and details are the batch's."""
    lines = ["{broken", {"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r"}]
    (tmp_path / "rows.jsonl").write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    rows = read_source(SourceConfig(path=str(tmp_path / "rows.jsonl")))
    found = tabulate(rows, start=70)
    assert found.problems["_row"].tolist() == [70, 71, 72]
    assert found.readable["_row"].tolist() == [71, 72]
    assert found.detail(70, "problem") == found.problems["problem"].iloc[0]
    assert found.detail(71, "copy_of") is None
    assert found.detail(72, "copy_of") is not None
