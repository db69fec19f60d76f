"""JSON lists, objects over many lines, and objects that hold a list of rows."""

import hashlib
import io
import json
from typing import Any, BinaryIO

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MAX_ROW_BYTES, MIB
from poisonwatch.sources.json_values import (
    read_json_values,
    read_list_text,
)


def listed(content: bytes) -> list[RawRow]:
    file: BinaryIO = io.BufferedReader(io.BytesIO(content))
    return list(read_json_values(file, "a.json"))


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


@pytest.mark.parametrize(
    "element",
    [
        '{"n": 1,}',
        '{"n": x, "m": "]}", "o": ["\\\\", "\\""]}',
        "[1, {]}",
        "[" * 50_000 + "]" * 50_000,
        pytest.param(('{"n": "', "x" * 3, '"}'), id="long"),
        pytest.param(('{"n": x, "m": "', '\\"', '"}'), id="long and broken"),
    ],
)
def test_element_that_is_broken_or_too_long_costs_one_row(element: str | tuple[str, ...]) -> None:
    """Its brackets tell where it ends; it is kept as it stands, or as its beginning."""
    if isinstance(element, tuple):
        start, again, end = element
        element = start + again * MAX_ROW_BYTES + end
    rows = listed(f'[{{"n": 1}}, {element} , {{"n": 3}}]'.encode())
    assert [row.record for row in rows] == [{"n": 1}, None, {"n": 3}]
    assert [row.position for row in rows] == [0, 1, 2]
    assert element.encode().startswith(rows[1].raw)
    if len(element) > MAX_ROW_BYTES:
        assert "longer than 16 MiB" in str(rows[1].problem)
        assert hashlib.sha256(element.encode()).hexdigest() in str(rows[1].problem)
    else:
        assert rows[1].raw == element.encode()


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
