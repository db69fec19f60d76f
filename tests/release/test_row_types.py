"""Types of JSON rows: which can stand in one file, as pyarrow has it."""

import io
import json
from itertools import permutations
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json
import pytest

from poisonwatch.release.row_types import (
    MixedTypesError,
    count_fields,
    infer_type,
    merge_types,
)

VALUES: list[Any] = [
    None,
    "x",
    1,
    1.5,
    True,
    [],
    ["x"],
    [1, None, 2.5],
    [[1], []],
    {},
    {"b": 1},
    {"b": "x"},
    {"b": None, "c": [1]},
    [{"b": 1}, {"c": "x"}],
    [{"b": {"c": True}}],
    [1, "x"],
    [{"b": 1}, {"b": [1]}],
]


def goes_together(*values: Any) -> bool:
    merged = None
    try:
        for value in values:
            merged = merge_types(merged, infer_type({"a": value}))
    except MixedTypesError:
        return False
    return True


def pyarrow_reads(*values: Any) -> bool:
    lines = "".join(json.dumps({"a": value}) + "\n" for value in values)
    try:
        arrow_json.read_json(io.BytesIO(lines.encode()))
    except pa.ArrowInvalid:
        return False
    return True


@pytest.mark.parametrize("one", VALUES)
def test_types_go_together_where_pyarrow_reads_them(one: Any) -> None:
    """Each value with each other, in either order, and alone."""
    assert goes_together(one) == pyarrow_reads(one)
    for other in VALUES:
        for pair in permutations([one, other]):
            assert goes_together(*pair) == pyarrow_reads(*pair), pair


def test_merging_tells_whether_anything_is_new() -> None:
    """The first type itself, where the second adds nothing."""
    known = infer_type({"a": [{"b": 1.5}], "c": None, "d": "x"})
    assert merge_types(known, infer_type({"a": [], "d": None})) is known
    assert merge_types(known, infer_type({"a": [{"b": 2}, None]})) is known
    assert merge_types(known, infer_type({"d": "2020-01-01 00:00:00"})) is known
    grown = merge_types(known, infer_type({"a": [{"e": "x"}], "c": True}))
    assert grown == {"a": ({"b": "number", "e": "text"},), "c": "boolean", "d": "text"}
    assert known["c"] is None
    assert count_fields(grown) == 5


def test_narrower_types_widen() -> None:
    """Integers to numbers, and what pyarrow takes for points in time to text."""
    times = [
        infer_type(text) for text in ("2020-01-01", "2020-01-01T10:00:00Z", "2020-1-1", "2020")
    ]
    assert times == ["time", "time", "text", "text"]
    assert merge_types("time", "text") == merge_types("text", "time") == "text"
    assert merge_types("integer", "number") == merge_types("number", "integer") == "number"
    with pytest.raises(MixedTypesError):
        merge_types("time", "integer")
