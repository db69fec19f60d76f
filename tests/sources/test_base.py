"""What every unit of a source has in common: JSON rows, bounds, errors."""

import hashlib

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import (
    MAX_ROW_BYTES,
    batch_by_size,
    dump_compact,
    limit_size,
    make_json_row,
    parse_record,
    translate_errors,
)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'{"a": "\xff"}', "not UTF-8 (byte 8)"),
        (b'{"a": 1', "not JSON ("),
        (b'{"a": "x\x00"}', "not JSON (Invalid control character at)"),
        (b"[" * 100_000, "not JSON (too deep)"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON (Exceeds the limit"),
        (b"[1]", "a JSON list, not an object"),
        (b"null", "a JSON NoneType, not an object"),
    ],
)
def test_json_that_is_no_row_has_a_problem(raw: bytes, problem: str) -> None:
    """parse raises with the very text that the row carries; the row keeps its bytes."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_record(raw)
    row = make_json_row("a", 3, "a, line 4", raw)
    assert row.problem == str(caught.value)
    assert str(caught.value).startswith(problem)
    assert (row.raw, row.record, row.position) == (raw, None, 3)


def test_byte_order_mark_is_no_part_of_the_record() -> None:
    """It stays in the row's bytes."""
    raw = b'\xef\xbb\xbf{"a": "\xc3\xa9"}'
    assert parse_record(raw) == {"a": "é"}
    assert make_json_row("a", 0, "a", raw).raw == raw


@pytest.mark.parametrize(
    "record", [{"a": "红 é"}, {"a": "\ud800 half"}, {"a": [1.5, None, True, {"b": "\x00"}]}, {}]
)
def test_compact_json_gives_the_record_back(record: dict[str, object]) -> None:
    """parse(compact(r)) = r, half surrogates included; text is not escaped where UTF-8 holds it."""
    raw = dump_compact(record)
    assert parse_record(raw) == record
    assert b", " not in raw
    if record == {"a": "红 é"}:
        assert raw == '{"a":"红 é"}'.encode()


def test_row_beyond_the_limit_keeps_its_digest_only() -> None:
    """At MAX_ROW_BYTES bytes it is whole; one byte more and its SHA-256 stands for it."""
    longest = RawRow("a", 0, "a, row 1", {}, raw=b"x" * MAX_ROW_BYTES)
    assert limit_size(longest) is longest
    longer = RawRow("a", 0, "a, row 1", {}, raw=b"x" * (MAX_ROW_BYTES + 1))
    digest = hashlib.sha256(longer.raw).hexdigest()
    assert limit_size(longer) == RawRow(
        "a", 0, "a, row 1", problem=f"longer than 16 MiB (SHA-256 {digest})"
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
