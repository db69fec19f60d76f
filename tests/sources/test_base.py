"""What every unit of a source has in common: bounds, errors."""

import hashlib

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import (
    EXCERPT_CHARACTERS,
    MAX_ROW_BYTES,
    batch_by_size,
    limit_size,
    translate_errors,
)


def test_row_beyond_the_limit_keeps_its_digest_and_its_beginning() -> None:
    """At MAX_ROW_BYTES bytes it is whole; one byte more and its SHA-256 stands for it."""
    longest = RawRow("a", 0, "a, row 1", {}, raw=b"x" * MAX_ROW_BYTES)
    assert limit_size(longest) is longest
    longer = RawRow("a", 0, "a, row 1", {}, raw=b"x" * (MAX_ROW_BYTES + 1))
    digest = hashlib.sha256(longer.raw).hexdigest()
    assert limit_size(longer) == RawRow(
        "a",
        0,
        "a, row 1",
        problem=f"longer than 16 MiB (SHA-256 {digest})",
        raw=b"x" * EXCERPT_CHARACTERS,
    )


class _DriverError(Exception):
    orig = RuntimeError("Several attempts failed:\n- first\n- second")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("first\nsecond"), "first"),
        (KeyError(), "KeyError"),
        (_DriverError("[SQL: ...]"), "Several attempts failed: - first - second"),
        (RuntimeError("\x1b[31mred\u202e"), "\\u{1b}[31mred\\u{202e}"),
        (RuntimeError("x" * 10_000), "x" * 299 + "…"),
    ],
)
def test_whatever_fails_becomes_one_line(error: Exception, said: str) -> None:
    """One visible line of bounded length, without the error that it came from: its text may hold
    secrets.
    """
    with (
        pytest.raises(SourceError) as caught,
        translate_errors("a cannot be read", lambda text: text),
    ):
        raise error
    assert str(caught.value) == f"a cannot be read: {said}"
    assert caught.value.__suppress_context__


def test_own_errors_pass_through() -> None:
    """They say what to do already."""
    with (
        pytest.raises(SourceError, match=r"^mine$"),
        translate_errors("a cannot be read", lambda text: text),
    ):
        raise SourceError("mine")


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([1, 1, 1, 1], [[1, 1, 1], [1]]),
        ([6, 4, 1], [[6, 4], [1]]),
        ([6, 5, 1], [[6], [5, 1]]),
        ([1, 20, 1], [[1], [20], [1]]),
        ([0, 0, 0], [[0, 0, 0]]),
    ],
)
def test_batches_are_bounded_in_rows_and_in_bytes(
    sizes: list[int], batches: list[list[int]]
) -> None:
    """At most 3 rows and 10 bytes, in order; a longer row comes alone."""
    rows = [RawRow("a", i, "a", raw=b"x" * size) for i, size in enumerate(sizes)]
    found = list(batch_by_size(rows, max_rows=3, max_bytes=10))
    assert [[len(row.raw) for row in batch] for batch in found] == batches
    assert [row for batch in found for row in batch] == rows
