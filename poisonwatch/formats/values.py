"""Values of records: which are text, which are nothing, and what is wrong with the rest."""

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from poisonwatch.text.display import excerpt

_KIND_NAMES = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    type(None): "null",
}
_HOLDERS = (str, list, tuple, Mapping)
_NAME_CHARACTERS = 60
LONG_TEXT = 200  # characters from which a text may be what is trained on
_DEEPEST = 20


class ReadingError(ValueError):
    """A row that cannot be read, and why."""


def is_missing(value: Any) -> bool:
    """Is it null, or the NaN that pandas writes for it?"""
    if value is None:
        return True
    # NaN is the only value that differs from itself.
    return isinstance(value, float) and value != value


def is_nothing(value: Any) -> bool:
    """Is it missing, or an empty text, list or mapping?"""
    if isinstance(value, _HOLDERS):
        return not value
    return is_missing(value)


def holds_nothing(value: Any) -> bool:
    """Is it nothing where a list or an object belongs: false, a list of nulls, or what tables write
    for null?
    """
    if isinstance(value, str):
        return value.strip().lower() in ("", "none", "null", "nan")
    if isinstance(value, list | tuple):
        return all(map(is_missing, value))
    return value is False or is_nothing(value)


def decode_text(value: Any) -> Any:
    """Bytes as the text that they are in UTF-8: some tables know no other type for it. Any other
    value as it is.
    """
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def get_text(value: Any) -> str | None:
    """The value where it is text."""
    if isinstance(value, str):
        return value
    return None


def get_answer_text(value: Any) -> str | None:
    """The text of an answer: in a column that mixes them, a bare number or truth value is one, as
    JSON writes it.
    """
    if isinstance(value, bool | int | float) and not is_missing(value):
        try:
            return json.dumps(value)
        # A number with thousands of digits, which Python refuses to convert.
        except ValueError:
            return None
    return get_text(value)


def get_optional_text(value: Any, field: str) -> str | None:
    """The text of a field that may be missing or empty. Raises ReadingError where it is there and
    is not text.
    """
    if is_nothing(value):
        return None
    if not isinstance(value, str):
        raise ReadingError(f"{field} is {describe_kind(value)}, not text")
    return value or None


def get_truth(value: Any) -> bool | None:
    """The truth value, also as the text that CSV has; None where it is something else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return None


def describe_kind(value: Any) -> str:
    """What a value is, for people: JSON's names where it has one."""
    if isinstance(value, Mapping):
        return "an object"
    return _KIND_NAMES.get(type(value), f"a {type(value).__name__}")


def parse_json_text(value: Any) -> Any:
    """What a text says that is a JSON list or object, as tables without lists hold them; else the
    value itself. NaN is null in it, as in a row.

    Raises ReadingError where a key stands twice in an object, a number is infinite,
    or a text is half a surrogate pair.
    """
    if not _looks_like_json(value):
        return value
    try:
        parsed = _DECODER.decode(value)
    except ReadingError:
        raise
    # Too deep to be parsed, it is a text like any other.
    except (ValueError, RecursionError):
        return value
    if "\\u" in value:
        _refuse_half_surrogates(parsed)
    return parsed


def _refuse_half_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ReadingError(
            "a text in it holds half of a surrogate pair, which is no character: UTF-8 cannot hold "
            "it"
        ) from None


def peek_json_text(value: Any) -> Any:
    """The same, where it is not read yet: of a key that stands twice, the last one counts."""
    if not _looks_like_json(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _looks_like_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(("[", "{"))


def pair_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises ReadingError where a key stands twice."""
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    raise ReadingError(
        f"the key '{excerpt(key, _NAME_CHARACTERS)}' stands twice in one object: readers differ in "
        "which one counts"
    )


def _parse_fraction(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ReadingError("a number in it is beyond what 64 bits hold")
    return value


def _parse_constant(name: str) -> float | None:
    if name == "NaN":
        return None
    return _parse_fraction(name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=pair_once, parse_float=_parse_fraction, parse_constant=_parse_constant
)


def list_messages(value: Any) -> Any:
    """A list of messages, whose columns `datasets` may keep as {role: [...], content: [...]}; any
    other value as it is.
    """
    if not isinstance(value, Mapping) or not value:
        return value
    columns = [column for column in value.values() if not is_missing(column)]
    if not columns or not all(isinstance(column, list | tuple) for column in columns):
        return value
    length = len(columns[0])
    if any(len(column) != length for column in columns):
        return value
    messages = []
    for place in range(length):
        message = {}
        for key, column in value.items():
            message[key] = None if is_missing(column) else column[place]
        messages.append(message)
    return messages


def refuse_printed(value: Any, name: str) -> None:
    """Raises ReadingError where a text is what Python prints for a list of messages: no reader
    takes it for one.
    """
    if isinstance(value, str) and _PRINTED.match(value):
        raise ReadingError(
            f"{name} is text that Python printed, as in [{{'role': ...}}], and no list: save it "
            "with json.dumps, or as Parquet"
        )


_PRINTED = re.compile(
    r"""\s*(?:array\()?\s*\[\s*\{\s*'(?:role|from|content|value|speaker|author)'\s*:"""
)


def dump_canonical(value: Any) -> str:
    """A value as JSON: sorted keys, no spaces, nothing that is null.

    Raises TypeError or ValueError where it is not JSON.
    """
    return json.dumps(_drop_nulls(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _drop_nulls(value: Any) -> Any:
    """Tables give every record all keys, null where it has none."""
    if isinstance(value, Mapping):
        return {key: _drop_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_drop_nulls(item) for item in value]
    return value


def holds_long_text(value: Any, depth: int = 0) -> bool:
    """Does it hold a text that could be an answer, itself or within?"""
    if isinstance(value, str):
        return len(value) > LONG_TEXT
    if depth == _DEEPEST:
        return False
    inner: Collection[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    return any(holds_long_text(item, depth + 1) for item in inner)
