"""JSON rows: what a row says, and which bytes stand for it.

A row is one JSON object, as standard JSON has it, that every usual reader (pyarrow, pandas,
datasets) reads as the same. What they read differently, or not at all, is the row's problem. NaN,
which Python writes for nothing, is null, and the row's bytes say so.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from poisonwatch.examples import RawRow
from poisonwatch.formats.values import ReadingError, pair_once
from poisonwatch.sources.encodings import describe_not_utf8, suspect_encoding
from poisonwatch.text.display import excerpt

BOM = b"\xef\xbb\xbf"
SPACE = " \t\r\n"
# Of lists and objects in each other: datasets cannot read a column that holds more than 62.
MAX_DEPTH = 63
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
_SAFE_DIGITS = 18  # an integer of so many is small enough in any case
_MAX_NAME_CHARACTERS = 60


class _RowError(ValueError):
    """A row's problem, in words."""


class _NonFiniteError(ValueError):
    """NaN or Infinity stands in a row."""


class _NumberError(ValueError):
    """A number is larger than 64 bits hold."""


def parse_record(raw: bytes) -> Mapping[str, Any]:
    """The record of a JSON row.

    Raises ValueError with the row's problem.
    """
    return read_record(raw)[0]


def make_json_row(name: str, position: int, place: str, raw: bytes) -> RawRow:
    """A row of JSON bytes, which are its own but for NaN and a byte-order mark, or what is wrong
    with it.
    """
    try:
        record, own = read_record(raw)
    except ValueError as error:
        return RawRow(name, position, place, problem=str(error), raw=raw)
    return RawRow(name, position, place, record, raw=own)


def make_compact_row(name: str, position: int, place: str, text: bytes) -> RawRow:
    """A row of JSON that may go over many lines; its bytes are those of the record as compact
    JSON.
    """
    try:
        record, _ = _read_object(text)
    except ValueError as error:
        return RawRow(name, position, place, problem=str(error), raw=text)
    return RawRow(name, position, place, record, raw=dump_compact(record))


def parse_json_value(text: str) -> Any:
    """The value that a text spells, by the rules of rows.

    Raises ValueError with what is wrong.
    """
    try:
        value, _ = _decode(text.strip(SPACE))
    except RecursionError:
        raise _RowError("not JSON (too deep)") from None
    except (_RowError, ReadingError):
        raise
    except ValueError as error:
        raise _RowError(f"not JSON ({describe_json_error(error)})") from None
    if "\\u" in text and not _is_writable(value):
        _refuse_unwritable({"": value})
    return value


def read_record(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The record of a JSON row, and the bytes that stand for it.

    Raises ValueError with the row's problem.
    """
    raw = strip_marks(raw)
    if b"\r" in raw:
        at = raw.index(b"\r") + 1
        raise _RowError(
            f"a carriage return stands inside the line (byte {at}): some readers take it for the "
            "end of a line; end lines with LF or CR LF"
        )
    record, has_nothings = _read_object(raw)
    if has_nothings:
        return record, dump_compact(record)
    return record, raw


def strip_marks(raw: bytes) -> bytes:
    """The bytes without byte-order marks before them: files that were joined may have several."""
    at = 0
    while raw.startswith(BOM, at):
        at += len(BOM)
    return raw[at:]


def _read_object(raw: bytes) -> tuple[dict[str, Any], bool]:
    """The record, and whether it holds NaN, which is null in it."""
    try:
        text = strip_marks(raw).decode()
        record, has_nothings = _decode(text.strip(SPACE))
    except UnicodeDecodeError as error:
        raise _RowError(describe_not_utf8(raw, error)) from None
    except RecursionError:
        raise _RowError("not JSON (too deep)") from None
    except (_RowError, ReadingError):
        raise
    except ValueError as error:
        raise _RowError(f"not JSON ({describe_json_error(error)}){_explain_nul(raw)}") from None
    if not isinstance(record, dict):
        raise _RowError(f"a JSON {type(record).__name__}, not an object")
    # Lists and objects that open are counted before their depth is measured, which takes longer.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _measure_depth(record) > MAX_DEPTH:
        raise _RowError(f"lists and objects stand more than {MAX_DEPTH} deep in each other")
    if b"\\u" in raw and not _is_writable(record):
        _refuse_unwritable(record)
    return record, has_nothings


def _decode(text: str) -> tuple[Any, bool]:
    try:
        record, end = _STRICT.raw_decode(text)
    except _NonFiniteError:
        record = _decode_all(_LENIENT, text)
        _refuse_large_numbers(record)
        return record, True
    except _NumberError:
        # Where it stands is looked for only now.
        _refuse_large_numbers(_decode_all(_LENIENT, text))
        raise
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return record, False


def _decode_all(decoder: json.JSONDecoder, text: str) -> Any:
    record, end = decoder.raw_decode(text)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return record


def _parse_integer(digits: str) -> int:
    if len(digits) <= _SAFE_DIGITS:
        return int(digits)
    # 20 characters hold the largest, and the smallest with its sign.
    if len(digits) > 20 or not SMALLEST_INTEGER <= int(digits) <= LARGEST_INTEGER:
        raise _NumberError
    return int(digits)


def _parse_fraction(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NumberError
    return value


def _refuse_constant(name: str) -> None:
    raise _NonFiniteError(name)


def _parse_any_integer(digits: str) -> float:
    try:
        return _parse_integer(digits)
    except _NumberError:
        return math.inf


def _parse_any_constant(name: str) -> float | None:
    if name == "NaN":
        return None
    return math.inf


_STRICT = json.JSONDecoder(
    object_pairs_hook=pair_once,
    parse_int=_parse_integer,
    parse_float=_parse_fraction,
    parse_constant=_refuse_constant,
)
# Takes what is wrong with a record for infinite, so that it can be found.
_LENIENT = json.JSONDecoder(
    object_pairs_hook=pair_once,
    parse_int=_parse_any_integer,
    parse_constant=_parse_any_constant,
)


def _refuse_large_numbers(record: Any) -> None:
    """Raises _RowError where a number is infinite: spelt so, or too large."""
    for path, value in _walk(record, ""):
        if isinstance(value, float) and math.isinf(value):
            raise _RowError(f"{_name_field(path)} is a number beyond what 64 bits hold")


def _refuse_unwritable(record: Mapping[str, Any]) -> None:
    """Raises _RowError where text is half of a surrogate pair, which UTF-8 cannot hold, or NUL
    stands in a field's name.
    """
    for path, value in _walk(record, ""):
        name = path.rpartition(".")[2]
        if "\0" in name:
            raise _RowError(f"the name of {_name_field(path)} holds the character NUL")
        for text in (name, value):
            if isinstance(text, str) and not _is_utf8(text):
                raise _RowError(
                    f"{_name_field(path)} holds half of a surrogate pair, which is no character: "
                    "UTF-8 cannot hold it"
                )


def _is_writable(record: Any) -> bool:
    """Whether nothing in a record needs to be looked at more closely; this takes little time."""
    try:
        return b"\\u0000" not in orjson.dumps(record)
    # Half of a surrogate pair, or nested more deeply than orjson writes.
    except orjson.JSONEncodeError:
        return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value in a record with the names that lead to it, joined by dots."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, path)


def _measure_depth(value: Any) -> int:
    """How deep lists and objects stand in each other; no deeper than one beyond MAX_DEPTH."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level = [each for each in inner if isinstance(each, dict | list)]
        depth += 1
    return depth


def _name_field(path: str) -> str:
    return f"the field {_show(path)}"


def _show(name: str) -> str:
    return f"'{excerpt(name, _MAX_NAME_CHARACTERS)}'"


def _explain_nul(raw: bytes) -> str:
    """A file may go on in another encoding than it began in: what PowerShell appends does."""
    found = suspect_encoding(raw)
    if found is None:
        return ""
    return f": {found}"


def describe_json_error(error: ValueError) -> str:
    """What is wrong with a JSON text, without the text."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return str(error)


def dump_compact(record: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """A record as compact JSON; half surrogates, which JSON can escape and UTF-8 cannot hold, stay
    escaped.
    """
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=default)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(record, separators=(",", ":"), default=default).encode()


def dump_alike(record: Mapping[str, Any], raw: bytes) -> bytes:
    """A record as JSON that is spelt as another row's bytes are, where these are spelt as Python
    writes JSON; else as compact JSON.
    """
    before = parse_record(raw)
    for separators in (None, (",", ":")):
        for is_ascii in (False, True):
            spell = json.JSONEncoder(ensure_ascii=is_ascii, separators=separators)
            if spell.encode(before).encode("utf-8", "surrogatepass") == raw:
                return spell.encode(record).encode("utf-8", "surrogatepass")
    return dump_compact(record)
