"""JSON Lines, row by row, and a file that grows."""

import hashlib
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import EXCERPT_CHARACTERS, MAX_ROW_BYTES, MIB, Reading
from poisonwatch.sources.json_values import read_json_values
from poisonwatch.sources.jsonl import read_json_lines

OLD = b'{"n": 0}\n\n{"n": 1}\n'


def read(content: bytes, after: str | None = None) -> tuple[list[RawRow], Reading]:
    reading = Reading()
    return list(
        read_json_lines(lambda: io.BufferedReader(io.BytesIO(content)), "a", after, reading)
    ), reading


def cursor_of(content: bytes) -> str:
    cursor = read(content)[1].cursor
    assert cursor is not None
    return cursor


def numbers(rows: list[RawRow]) -> list[tuple[object, int, str]]:
    return [(row.record and row.record["n"], row.position, row.place) for row in rows]


def test_raw_bytes_are_those_of_the_line() -> None:
    """Without its end and byte-order mark; spaces and escapes stay."""
    rows, _ = read(b'\xef\xbb\xbf {"n" : 1}  \r\r\n{"n": "\\u00e9"}\n{broken\r\n{"n":3}')
    assert [row.raw for row in rows] == [
        b' {"n" : 1}  ',
        b'{"n": "\\u00e9"}',
        b"{broken",
        b'{"n":3}',
    ]


def test_file_that_grew_gives_its_new_rows_only() -> None:
    """Positions and lines go on; the marks of both readings are the same as of one."""
    rows, reading = read(OLD + b'\n{"n": 2}\n', cursor_of(OLD))
    assert reading.continued
    assert numbers(rows) == [(2, 2, "a, line 5")]
    assert reading.cursor == cursor_of(OLD + b'\n{"n": 2}\n')


def test_unchanged_file_gives_no_row_and_the_same_mark() -> None:
    """Nothing beyond."""
    rows, reading = read(OLD, cursor_of(OLD))
    assert (rows, reading.continued, reading.cursor) == ([], True, cursor_of(OLD))


def test_empty_file_may_grow() -> None:
    """Its cursor covers nothing."""
    rows, reading = read(b'{"n": 0}\n', cursor_of(b""))
    assert reading.continued
    assert numbers(rows) == [(0, 0, "a, line 1")]


@pytest.mark.parametrize(
    "content",
    [b'{"n": 9}\n\n{"n": 1}\n{"n": 2}\n', b'{"n": 0}\n', b"", b'\n{"n": 0}\n\n{"n": 1}\n'],
    ids=["edited", "shortened", "emptied", "shifted"],
)
def test_file_that_changed_is_read_whole(content: bytes) -> None:
    """Any byte of what was read before."""
    rows, reading = read(content, cursor_of(OLD))
    assert not reading.continued
    assert (rows, reading.cursor) == (read(content)[0], cursor_of(content))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_last_line_without_an_end_may_get_one_later(end: bytes) -> None:
    """It was a row already, and is not one twice."""
    rows, reading = read(OLD + b'{"n": 2}' + end + b'{"n": 3}', cursor_of(OLD + b'{"n": 2}'))
    assert reading.continued
    assert numbers(rows) == [(3, 3, "a, line 5")]


def test_last_line_that_was_half_written_is_read_again() -> None:
    """The file is read whole: the row that was broken is another one now."""
    half = OLD + b'{"n": '
    assert read(half)[0][-1].problem is not None
    rows, reading = read(half + b"2}\n", cursor_of(half))
    assert not reading.continued
    assert numbers(rows)[-1] == (2, 2, "a, line 4")


@pytest.mark.parametrize("cursor", ["", "no JSON", "[]", '{"other": 1}', "5"])
def test_cursor_of_another_kind_is_no_cursor(cursor: str) -> None:
    """All rows."""
    rows, reading = read(OLD, cursor)
    assert not reading.continued
    assert len(rows) == 2


def test_abandoned_reading_leaves_no_mark() -> None:
    """Only a complete reading can be gone on from."""
    reading = Reading()
    rows = read_json_lines(lambda: io.BufferedReader(io.BytesIO(OLD)), "a", None, reading)
    next(rows)
    rows.close()
    assert reading.cursor is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_long_line_costs_one_row_and_its_beginning_is_kept(end: bytes) -> None:
    """Longer than 16 MiB; rows before and after it are read, and the file can still be gone on
    from.
    """
    long = b'{"n": "' + b"x" * (MAX_ROW_BYTES + MIB) + b'"}'
    content = b'{"n": 0}\n' + long + end + (b'{"n": 2}\n' if end else b"")
    rows, reading = read(content)
    assert rows[1] == RawRow(
        "a",
        1,
        "a, line 2",
        problem=f"longer than 16 MiB (SHA-256 {hashlib.sha256(long).hexdigest()})",
        raw=long[:EXCERPT_CHARACTERS],
    )
    assert numbers(rows[2:]) == ([(2, 2, "a, line 3")] if end else [])
    assert read(content + b'\n{"n": 3}\n', reading.cursor)[0][-1].position == len(rows)


@pytest.mark.parametrize(("over", "kept"), [(0, True), (1, False)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_limit_is_of_the_line_without_its_end(over: int, kept: bool, end: bytes) -> None:
    """Exactly 16 MiB is a row."""
    frame = len(b'{"n": ""}')
    (row,), _ = read(b'{"n": "' + b"x" * (MAX_ROW_BYTES - frame + over) + b'"}' + end)
    assert (row.problem is None) == kept
    assert len(row.raw) == (MAX_ROW_BYTES if kept else EXCERPT_CHARACTERS)


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_line_of_100_mb_is_never_in_memory(tmp_path: Path) -> None:
    """Python's own memory stays near the 16 MiB that a row may have."""
    with (tmp_path / "a.jsonl").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 1_000_000)

    def work() -> None:
        (row,) = read_json_lines(lambda: (tmp_path / "a.jsonl").open("rb"), "a", None, Reading())
        assert row.problem is not None

    assert peak(work) < 3 * MAX_ROW_BYTES


@pytest.mark.parametrize("reader", ["lines", "list"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, reader: str) -> None:
    """Ten times the rows, the same peak, to 1 MiB."""

    def of(rows: int) -> int:
        path = tmp_path / f"{rows}"
        records = [json.dumps({"prompt": f"{i} " * 50, "response": "x" * 200}) for i in range(rows)]
        path.write_text(
            "\n".join(records) if reader == "lines" else "[" + ",\n".join(records) + "]"
        )

        def work() -> None:
            with path.open("rb") as file:
                found = (
                    read_json_lines(lambda: path.open("rb"), "a", None, Reading())
                    if reader == "lines"
                    else read_json_values(file, "a")
                )
                assert sum(1 for _ in found) == rows

        return peak(work)

    assert of(40_000) < of(4_000) + MIB


def test_line_that_is_a_list_is_its_rows() -> None:
    """Positions go on behind it, in a later reading, too; a broken list is one broken row."""
    content = b'{"n": 0}\n[{"n": 1}, {"n": 2}]\n[]\n[{"n": 3}\n'
    rows, reading = read(content)
    assert numbers(rows) == [
        (0, 0, "a, line 1"),
        (1, 1, "a, line 2, row 1"),
        (2, 2, "a, line 2, row 2"),
        (None, 3, "a, line 4"),
    ]
    assert rows[1].raw == b'{"n":1}'
    rows, _ = read(content + b'{"n": 4}\n', reading.cursor)
    assert numbers(rows) == [(4, 4, "a, line 5")]


def test_line_with_a_carriage_return_inside_costs_one_row() -> None:
    """Some readers take it for two lines; before the line's end any number may stand."""
    rows, _ = read(b'{"n": 0}\r\r\n{"n":\r1}\r\n{"n": 2}\n')
    assert [row.problem is None for row in rows] == [True, False, True]
    assert rows[0].raw == b'{"n": 0}'


def test_blank_lines_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million take as long as as many rows, and packed they are nothing."""
    monkeypatch.setattr("poisonwatch.sources.jsonl.MAX_BLANK_LINES", 10)

    rows, _ = read(b'{"a": 1}\n' + b" \n" * 10)
    assert len(rows) == 1
    with pytest.raises(SourceError, match=r"^a has more than 10 blank lines"):
        read(b'{"a": 1}\n' + b"\r\n" * 11)
