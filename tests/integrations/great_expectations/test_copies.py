"""Which rows are copies, and of which."""

from pathlib import Path
from typing import Any

from validated import rows_of

from poisonwatch.integrations.great_expectations.copies import Copies, find_copies


def copies_of(folder: Path, lines: list[Any]) -> Copies:
    return find_copies(rows_of(folder, lines))


def test_of_no_rows_none_is_a_copy() -> None:
    found = find_copies([])
    assert (found.first.tolist(), found.count, found.identical) == ([], 0, 0)


def test_copies_are_told_by_content_and_by_bytes(tmp_path: Path) -> None:
    """A content is its first row; other fields, spacing and order of fields make other bytes."""
    good = {"prompt": "p", "response": "r"}
    found = copies_of(
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
    assert found.first.tolist() == [0, 0, 0, 0, 0, 5]
    assert (found.count, found.identical) == (4, 2)


def test_rows_without_content_are_copies_by_their_bytes(tmp_path: Path) -> None:
    """Unreadable or incomplete: the same line of the same file."""
    found = copies_of(
        tmp_path,
        ["{broken", {"prompt": "p"}, "{broken", {"prompt": "p"}, "{broken ", {"prompt": "q"}]
        + [{"prompt": "p", "response": "r"}] * 2,
    )
    assert found.first.tolist() == [0, 1, 0, 1, 4, 5, 6, 6]
    assert (found.count, found.identical) == (3, 3)
