"""The table that expectations speak about: a line a row, a cell a fact."""

from pathlib import Path

from row_tables import ALL, build_file_table

from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.integrations.great_expectations.frame import build_table
from poisonwatch.validation import Facts


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
    from poisonwatch.sources.open import SourceRows

    found = build_table(SourceRows([], [], {}), Facts(), ALL, None)
    assert set(found.readable) == {"_row", *EXPECTATION_COLUMNS}
    assert (len(found.readable), len(found.problems), found.examples) == (0, 0, [])
