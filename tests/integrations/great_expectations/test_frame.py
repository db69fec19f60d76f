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


def test_copies_are_told_by_content_and_by_bytes(tmp_path: Path) -> None:
    """A content is its first row; other fields, spacing and order of fields make other bytes."""
    good = {"prompt": "p", "response": "r"}
    found = build_file_table(
        tmp_path,
        [
            good,
            {**good, "id": 1},
            good,
            '{"prompt":"p","response":"r"}',
            {**good, "id": 1},
            {"prompt": "q", "response": "r"},
        ],
    )
    assert found.first == [0, 0, 0, 0, 0, 5]
    assert (found.copies, found.identical) == (4, 2)


def test_rows_without_content_are_copies_by_their_bytes(tmp_path: Path) -> None:
    """Unreadable or incomplete: the same line of the same file."""
    found = build_file_table(
        tmp_path,
        ["{broken", {"prompt": "p"}, "{broken", {"prompt": "p"}, "{broken ", {"prompt": "q"}]
        + [{"prompt": "p", "response": "r"}] * 2,
    )
    assert found.first == [0, 1, 0, 1, 4, 5, 6, 6]
    assert (found.copies, found.identical) == (3, 3)
