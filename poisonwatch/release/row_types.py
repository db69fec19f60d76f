"""Types of JSON rows, as pyarrow infers them: which rows can stand in one file.

A field is of one type in all rows of a file: text, number, boolean, list or object, and null goes
with any. pyarrow cannot read a file in which it is of two; pandas and datasets can, as long as the
file is short. Types are plain values:

    None                                   nothing but null yet
    "text", "number", "boolean"
    "time", "integer"                      texts and numbers that are taken for narrower types
    {field: type}                          an object
    (type,)                                a list of such items
"""

import re
from typing import Any

RowType = Any
# Of the fields that rows of one file have together: objects may be keyed by whatever.
MAX_FIELDS = 2000
_PLAIN = {int: "integer", float: "number", bool: "boolean", type(None): None}
_WIDER = {"time": "text", "integer": "number"}
# What pyarrow takes for points in time: a day, or a time of one.
_TIME = re.compile(r"\d{4}-\d\d-\d\d([ T][\d:.,]*(Z|[+-][\d:]*)?)?")


class MixedTypesError(ValueError):
    """A field is of two types."""


def infer_type(value: Any) -> RowType:
    """The type of a value.

    Raises MixedTypesError where a list in it holds items of several.
    """
    kind = type(value)
    if kind is str:
        return "time" if _TIME.fullmatch(value) else "text"
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind is dict:
        return {key: infer_type(inner) for key, inner in value.items()}
    item = None
    for inner in value:
        item = merge_types(item, infer_type(inner))
    return (item,)


def merge_types(one: RowType, other: RowType) -> RowType:
    """The type of a field that is of both; `one` itself where it tells no less.

    Raises MixedTypesError where no field can be.
    """
    if other is None or one == other:
        return one
    if one is None:
        return other
    if isinstance(one, str) and isinstance(other, str):
        return _merge_plain(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return _merge_objects(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        item = merge_types(one[0], other[0])
        return one if item is one[0] else (item,)
    raise MixedTypesError


def _merge_plain(one: str, other: str) -> RowType:
    if _WIDER.get(other) == one:
        return one
    if _WIDER.get(one) == other:
        return other
    raise MixedTypesError


def _merge_objects(one: dict[str, RowType], other: dict[str, RowType]) -> dict[str, RowType]:
    changed: dict[str, RowType] = {}
    for key, kind in other.items():
        merged = merge_types(one.get(key), kind)
        if key not in one or merged is not one[key]:
            changed[key] = merged
    if not changed:
        return one
    return one | changed


def count_fields(kind: RowType) -> int:
    """How many fields objects have in a type, at any depth."""
    if isinstance(kind, dict):
        return len(kind) + sum(map(count_fields, kind.values()))
    if isinstance(kind, tuple):
        return count_fields(kind[0])
    return 0
