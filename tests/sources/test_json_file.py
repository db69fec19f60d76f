"""Files of JSON: how rows stand in one is told by how it begins."""

import io
import json
from typing import Any

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MIB, Reading
from poisonwatch.sources.json_file import choose_layout, read_json_file

ROWS: list[Any] = [{"n": i, "text": "红 x"} for i in range(3)]


def read(content: bytes, after: str | None = None, name: str = "a") -> tuple[list[RawRow], Reading]:
    reading = Reading()

    def start() -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(content))

    return list(read_json_file(start, name, after, reading)), reading


def as_lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


LAYOUTS = {
    "lines": as_lines(ROWS),
    "lines without the last end": as_lines(ROWS).rstrip("\n"),
    "list": json.dumps(ROWS),
    "list over lines": json.dumps(ROWS, indent=2),
    "list a row a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "lists, a line each": json.dumps(ROWS[:2]) + "\n" + json.dumps(ROWS[2:]) + "\n",
    "list among lines": as_lines([ROWS[0], ROWS[1:]]),
    "lines after a list": as_lines([ROWS[:1], *ROWS[1:]]),
    "objects over lines": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "objects, opened on the first line": "\n".join(
        json.dumps(row, indent=4).replace("{\n", "{", 1) for row in ROWS
    ),
    "under a key": json.dumps({"data": ROWS}),
    "under a key, over lines": json.dumps({"version": 2, "train": ROWS, "by": "x"}, indent=1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n \n"])
def test_rows_are_found_however_they_stand(layout: str, start: bytes) -> None:
    """Whatever the suffix says; a byte-order mark is no part of them."""
    rows, _ = read(start + LAYOUTS[layout].encode())
    assert [row.record for row in rows] == ROWS
    assert [row.position for row in rows] == [0, 1, 2]
    assert not any(row.raw.startswith(b"\xef") for row in rows)


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_is_one_row(indent: int | None) -> None:
    """Also where it is a conversation: its turns are no rows."""
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    rows, _ = read(json.dumps(row, indent=indent).encode())
    assert [found.record for found in rows] == [row]


@pytest.mark.parametrize(
    "first", ['{"n": ', '{"n": 1,', "{", '{"n": "x', "no JSON", '{"n": 1} x', "\ufeff}"]
)
def test_broken_first_line_costs_one_row(first: str) -> None:
    """Lines behind it are read."""
    rows, _ = read(first.encode() + b"\n" + as_lines(ROWS).encode())
    assert [row.record for row in rows] == [None, *ROWS]


def test_lines_that_grow_give_their_new_rows_only() -> None:
    """The first bytes tell the same of both; a list is read whole."""
    old = as_lines(ROWS).encode()
    _, reading = read(old)
    rows, reading = read(old + b'{"n": 3}\n', reading.cursor)
    assert reading.continued
    assert [(row.record, row.position) for row in rows] == [({"n": 3}, 3)]
    again, changed = read(b"\n" + old, reading.cursor)
    assert not changed.continued
    assert len(again) == 3
    assert read(json.dumps(ROWS).encode())[1].cursor is None


def test_row_that_is_longer_than_the_head_is_whole() -> None:
    """In lines, in a list, over many lines, under a key."""
    long = [{"text": "x" * (2 * MIB)}, {"text": "y"}]
    texts = [as_lines(long), json.dumps(long), json.dumps({"data": long})]
    texts.append("\n".join(json.dumps(row, indent=1) for row in long))
    for text in texts:
        assert [row.record for row in read(text.encode())[0]] == long


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_named_with_the_cure(encoding: str) -> None:
    """Nothing in such a file can be read: the file's error."""
    with pytest.raises(SourceError, match=rf"^a is in {encoding[:6].upper()}.*iconv"):
        read(as_lines(ROWS).encode(encoding))


def test_packed_file_is_told_its_suffix() -> None:
    """In place of a row of garbage."""
    with pytest.raises(SourceError, match=r"^a is packed with gzip: its name must end in \.gz$"):
        read(b"\x1f\x8b\x08\0\0\0\0\0")


def test_layouts_are_told_by_the_beginning() -> None:
    """Of a file whose end is not known, too."""
    assert choose_layout(b'{"data": [{"n": 1}, {"n"').key == "data"
    assert choose_layout(b'{"data": [{"n": 1}]}\n{"data": [{"n": 2}]}\n').is_lines
    assert choose_layout(b'{"text": "' + b"x" * 1000).is_lines
    assert choose_layout(b"").is_lines
    assert choose_layout(b'{\n  "text": "' + b"x" * 1000) == choose_layout(b"[")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize("indent", [None, 1])
def test_object_that_a_format_reads_is_a_row_whatever_lists_it_has(
    name: str, indent: int | None
) -> None:
    """Alone in its file, too; without such fields it holds rows, or none."""
    row = {"question": "q", "solution": "s", "test": [{"input": "1", "output": "2"}]}
    rows, _ = read(json.dumps(row, indent=indent).encode(), name=name)
    assert [found.record for found in rows] == [row]
    rows, _ = read(json.dumps({"test": row["test"]}, indent=indent).encode(), name=name)
    assert [found.record for found in rows] == row["test"]
    assert read(b'{"data": []}', name=name)[0] == []


def test_long_line_of_a_file_of_lines_is_a_row() -> None:
    """Which a file of another name may not have."""
    head = b'{"data": [{"text": "' + b"x" * 100
    assert choose_layout(head, is_lines=True).is_lines
    assert choose_layout(head).key == "data"
