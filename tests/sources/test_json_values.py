"""JSON lists, objects over many lines, and objects that hold a list of rows."""

import io
import json
from typing import Any, BinaryIO

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MAX_ROW_BYTES, MIB
from poisonwatch.sources.json_values import (
    ROW_LISTS,
    find_row_list,
    read_json_container,
    read_json_values,
    read_list_text,
)


def listed(content: bytes) -> list[RawRow]:
    file: BinaryIO = io.BufferedReader(io.BytesIO(content))
    return list(read_json_values(file, "a.json"))


def contained(record: Any, key: str) -> list[RawRow]:
    text = json.dumps(record, indent=1).encode()
    return list(read_json_container(io.BytesIO(text), "a.json", key))


@pytest.mark.parametrize(
    "text",
    [
        '[{"n":1},{"n":"é"},{"n":[{"n":2}]}]',
        "[]",
        " [ ] ",
        ' [\n{"n":1}\t,\r\n{"n":2}\n]\n',
    ],
)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_list_gives_the_rows_that_json_gives(text: str, start: bytes) -> None:
    """White space and byte-order marks aside; raw is the row as compact JSON."""
    rows = listed(start + text.encode())
    assert [row.record for row in rows] == json.loads(text)
    assert [json.loads(row.raw) for row in rows] == json.loads(text)
    assert [row.place for row in rows] == [f"a.json, row {i + 1}" for i in range(len(rows))]


def test_values_one_after_the_other_are_rows() -> None:
    """Objects over many lines, and lists; positions go on."""
    records: list[Any] = [{"n": 1, "m": {"x": [1, 2]}}, [{"n": 2}, {"n": 3}], {"n": 4}]
    text = "\n".join(json.dumps(record, indent=2) for record in records)
    rows = listed(text.encode())
    assert [row.record for row in rows] == [records[0], *records[1], records[2]]
    assert [row.position for row in rows] == [0, 1, 2, 3]
    assert rows[0].raw == b'{"n":1,"m":{"x":[1,2]}}'


def test_rows_across_the_edges_of_pieces_are_whole() -> None:
    """Pieces of 1 MiB, rows of any length, characters of several bytes."""
    records = [{"n": i, "text": "红é" * (i * 97 % 5000)} for i in range(400)]
    content = json.dumps(records, ensure_ascii=False).encode()
    assert len(content) > 3 * MIB
    assert [row.record for row in listed(content)] == records
    inside = {"version": 1, "data": records, "more": [1, 2]}
    assert [row.record for row in contained(inside, "data")] == records


def test_element_that_is_not_utf8_costs_one_row() -> None:
    """Its bytes are kept."""
    rows = listed(b'[{"n": 1}, {"n": "\xff"}, {"n": 3}]')
    assert [row.raw for row in rows] == [b'{"n":1}', b'{"n": "\xff"}', b'{"n":3}']
    assert [row.problem is None for row in rows] == [True, False, True]
    assert str(rows[1].problem).startswith("not UTF-8 (byte 8)")


@pytest.mark.parametrize(
    "element", ['{"n": 1, "n": 2}', "2", '"text"', '{"n": ' + "1" * 5000 + "}", '{"n": "\\ud800"}']
)
def test_element_that_is_no_row_costs_one_row(element: str) -> None:
    """As in a line of its own; it is kept as it stands."""
    rows = listed(f'[{{"n": 1}}, {element}, {{"n": NaN}}]'.encode())
    assert [row.problem is None for row in rows] == [True, False, True]
    assert rows[1].raw == element.encode()
    assert rows[2].raw == b'{"n":null}'


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_empty_file_is_a_list_of_no_rows(content: bytes) -> None:
    """No error."""
    assert listed(content) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'"text"', "is not JSON (it begins with "),
        (b"\xff\xfe[", "is not JSON (it begins with "),
        (b"[1, 2", "is not JSON (row 3: no comma before it)"),
        (b'[{"n": 1}, ]', "is not JSON (row 2: Expecting value)"),
        (b'[{"n": 1} {"n": 2}]', "is not JSON (row 2: no comma before it)"),
        (b'[{"n": 1}, {"n": ', "is not JSON (row 2: Expecting value)"),
        (b"[{}] x", "is not JSON (more follows after row 1, and begins with 'x')"),
        (b"[" * 100_000, "is not JSON (row 1: too deep)"),
        (b'["' + b"x" * (MAX_ROW_BYTES + 4 * MIB), "or longer than 16 MiB: "),
    ],
)
def test_file_whose_rows_have_no_end_says_so(content: bytes, said: str) -> None:
    """Nothing tells where a broken row ends, so the file is refused: a SourceError that names the
    row.
    """
    with pytest.raises(SourceError) as caught:
        listed(content)
    assert said in str(caught.value)
    assert str(caught.value).startswith("a.json ")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ROW_LISTS)
def test_object_may_hold_its_rows_in_a_list(key: str) -> None:
    """Under a name that such lists have, whatever stands beside it."""
    record = {"version": "1.0", "info": {"by": ["x"]}, key: [{"n": 1}, {"n": 2}]}
    text = json.dumps(record, indent=2)
    assert find_row_list(text) == key
    assert find_row_list(text[: text.index('"n"') + 1]) == key
    assert [row.raw for row in contained(record, key)] == [b'{"n":1}', b'{"n":2}']


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "x"}]},
        {"data": [{"from": "human", "value": "x"}]},
        {"data": [[1, 2]], "columns": ["a", "b"]},
        {"data": []},
        {"prompt": "x", "response": "y"},
        {},
    ],
)
def test_object_that_is_a_row_holds_none(record: Any) -> None:
    """A conversation is a list of objects, too."""
    assert find_row_list(json.dumps(record)) is None


def test_object_with_two_lists_of_rows_is_refused() -> None:
    """Which of them is trained on is not for the reader to say."""
    with pytest.raises(SourceError, match=r"'train' and under 'test'"):
        contained({"train": [{"n": 1}], "test": [{"n": 2}]}, "train")


def test_list_text_is_its_rows_or_none() -> None:
    """Places name the row within the line; what is broken is no list."""
    rows = read_list_text(b'[{"n": 1} , {"n": 1, "n": 2}, 3]', "a", 5, "a, line 2")
    assert rows is not None
    assert [(row.position, row.place) for row in rows] == [
        (5 + i, f"a, line 2, row {i + 1}") for i in range(3)
    ]
    assert [row.record for row in rows] == [{"n": 1}, None, None]
    assert read_list_text(b'[{"n": 1}, ', "a", 0, "a") is None
    assert read_list_text(b"[ ]", "a", 0, "a") == []
