"""Values of records: which are text, which are nothing, and what is wrong with the rest."""

import json
from collections.abc import Mapping
from typing import Any

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


_FILLED_TYPES = (str, list, dict, type(None))


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
    if is_missing(value):
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
    value itself.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    # Too deep to be parsed, it is a text like any other.
    except (ValueError, RecursionError):
        return value


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
