"""JSON rows: what stands for one, and what no two readers read alike."""

import io
import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.json as arrow_json
import pytest

from poisonwatch.sources.json_row import (
    MAX_DEPTH,
    dump_compact,
    make_compact_row,
    make_json_row,
    parse_record,
    strip_marks,
)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'{"a": "\xff"}', "not UTF-8 (byte 8)"),
        (b'{"a": 1', "not JSON ("),
        (b'{"a": 1} x', "not JSON (Extra data)"),
        (b'{"a": "x\x00"}', "not JSON (Invalid control character at)"),
        (b"[" * 100_000, "not JSON (too deep)"),
        (b"[1]", "a JSON list, not an object"),
        (b"null", "a JSON NoneType, not an object"),
        (b'{"a": ' + b"1" * 5000 + b"}", "the field 'a' is a number beyond what 64 bits hold"),
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


def test_byte_order_mark_is_no_part_of_the_row() -> None:
    """Neither of its record nor of its bytes: in the middle of a file no reader takes it."""
    raw = b'\xef\xbb\xbf{"a": "\xc3\xa9"}'
    assert parse_record(raw) == {"a": "é"}
    assert make_json_row("a", 0, "a", raw).raw == raw[3:]


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1, "x": 1}',
        '{"a": {"x": 1, "b": 2, "x": 3}}',
        '{"a": [{"x": 1, "\\u0078": 3}]}',
        '{"x": NaN, "x": 1}',
    ],
)
def test_key_that_stands_twice_is_named(text: str) -> None:
    """At any depth, in any spelling, with the same value, too."""
    problem = make_json_row("a", 0, "a", text.encode()).problem
    assert problem is not None
    assert problem.startswith("the key 'x' stands twice in one object")
    assert make_compact_row("a", 0, "a", text.encode()).problem == problem


def test_carriage_return_inside_a_line_is_named() -> None:
    """Where it stands, counted from 1. A text over many lines may hold it."""
    raw = b'{"a": 1,\r"b": 2}'
    problem = make_json_row("a", 0, "a", raw).problem
    assert problem is not None
    assert problem.startswith("a carriage return stands inside the line (byte 9)")
    assert make_compact_row("a", 0, "a", raw).raw == b'{"a":1,"b":2}'


def test_nan_is_null_in_record_and_bytes() -> None:
    """So that every reader takes it; the row is written anew only where it holds some."""
    row = make_json_row("a", 0, "a", '{"a": NaN, "b": ["é", NaN, 1.50], "c": 7}'.encode())
    assert row.record == {"a": None, "b": ["é", None, 1.5], "c": 7}
    assert row.raw == '{"a":null,"b":["é",null,1.5],"c":7}'.encode()
    assert make_json_row("a", 0, "a", row.raw) == row


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"a": "\\ud800"}', "a"),
        ('{"a": [{"b": "x\\udc00y"}]}', "a.b"),
        ('{"a": {"\\uD800": 1}}', "a.\\u{d800}"),
        ('{"a\\u0000": 1}', "a\\u{0}"),
        ('{"a": 18446744073709551616}', "a"),
        ('{"a": {"b": [1, -9223372036854775809]}}', "a.b"),
        ('{"a": 1e400}', "a"),
        ('{"a": -1e400, "b": NaN}', "a"),
        ('{"a": -Infinity}', "a"),
        ('{"a": NaN, "b": [Infinity]}', "b"),
    ],
)
def test_what_no_reader_takes_is_named_with_its_field(text: str, field: str) -> None:
    """Half a character, a name with NUL, a number beyond 64 bits: the row's problem."""
    problem = make_json_row("a", 0, "a", text.encode()).problem
    assert problem is not None
    assert f"'{field}'" in problem


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\ud83d\\ude00", "b": 18446744073709551615, "c": -9223372036854775808}',
        '{"a": "\\u0000 \\u4f60 \\uffff", "b": 1e-400, "c": -0, "d": 1E5, "": "\\/"}',
        '{"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}',
    ],
)
def test_what_readers_take_is_no_problem(text: str) -> None:
    """The record that Python reads, and the line's own bytes; pyarrow and pandas read them, too."""
    row = make_json_row("a", 0, "a", text.encode())
    assert (row.record, row.raw) == (json.loads(text), text.encode())
    assert arrow_json.read_json(io.BytesIO(row.raw)).num_rows == 1
    assert len(pd.read_json(io.BytesIO(row.raw), lines=True)) == 1


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', '{"a": 1e400}', '{"a": 1, "a": 2}'])
def test_what_is_refused_cannot_be_read_by_pyarrow(text: str) -> None:
    """A release that held it would not load."""
    with pytest.raises(pa.ArrowInvalid):
        arrow_json.read_json(io.BytesIO(text.encode()))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_has_a_limit(opening: str, closing: str) -> None:
    """MAX_DEPTH with the row itself, as far as datasets reads; one more is named."""
    inner = "1" if opening != "[" else ""

    def make(depth: int) -> str | None:
        levels = depth - 1
        text = '{"a":' + opening * levels + inner + closing * levels + "}"
        return make_json_row("a", 0, "a", text.encode()).problem

    assert make(MAX_DEPTH) is None
    assert f"more than {MAX_DEPTH} deep" in str(make(MAX_DEPTH + 1))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_line_in_another_encoding_is_named(encoding: str) -> None:
    """What PowerShell appends to a file in UTF-8 costs its own rows."""
    problem = make_json_row("a", 0, "a", '{"a": "x", "b": "y"}'.encode(encoding)).problem
    assert encoding[:6].upper() in str(problem)


@pytest.mark.parametrize(
    "record", [{"a": "红 é"}, {"a": [1.5, None, True, {"b": "\x00"}]}, {}, {"n": 10**18}]
)
def test_compact_json_gives_the_record_back(record: dict[str, object]) -> None:
    """parse(compact(r)) = r; text is not escaped where UTF-8 holds it."""
    raw = dump_compact(record)
    assert parse_record(raw) == record
    assert b", " not in raw
    if record == {"a": "红 é"}:
        assert raw == '{"a":"红 é"}'.encode()


def test_compact_json_keeps_half_a_pair_escaped() -> None:
    """It is written where it must be, and refused as a row."""
    raw = dump_compact({"a": "\ud800 é"})
    assert raw == b'{"a":"\\ud800 \\u00e9"}'
    assert make_json_row("a", 0, "a", raw).problem is not None
    assert make_json_row("a", 0, "a", dump_compact({"a": math.nan})).record == {"a": None}


def test_marks_before_a_row_are_none_of_it() -> None:
    """However many there are: files that were joined may have several."""
    row = make_json_row("a", 0, "a", b"\xef\xbb\xbf" * 3 + b'{"a": 1}')
    assert (row.record, row.raw) == ({"a": 1}, b'{"a": 1}')
    assert strip_marks(b"a\xef\xbb\xbf") == b"a\xef\xbb\xbf"
