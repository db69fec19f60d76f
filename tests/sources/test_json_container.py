"""JSON files of one object that holds the rows in a list."""

import io
import json
from typing import Any

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MIB, Reading
from poisonwatch.sources.json_container import ROW_LISTS, find_row_list, read_json_container

ROW = {"prompt": "q", "completion": "a"}


def contained(record: Any, key: str, reading: Reading | None = None) -> list[RawRow]:
    text = json.dumps(record, indent=1).encode()
    file = io.BufferedReader(io.BytesIO(text))
    return list(read_json_container(file, "a.json", key, reading or Reading()))


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
        {"prompt": "x", "response": "y", "data": []},
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


def test_rows_across_the_edges_of_pieces_are_whole() -> None:
    """And the rest of the object is told by name."""
    records = [{"n": i, "text": "é" * (i * 97 % 5000)} for i in range(800)]
    assert len(json.dumps(records)) > 3 * MIB
    reading = Reading()
    inside = {"version": 1, "data": records, "more": [1, 2], "none": None}
    assert [row.record for row in contained(inside, "data", reading)] == records
    assert reading.beside == ("version", "more")


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "q"}], "examples": [ROW]},
        {"question": "q", "solution": "s", "test": [{"input": "1", "output": "2"}]},
        {"examples": [{"input": "1"}], "instruction": "i", "output": "o"},
    ],
)
def test_object_that_a_format_reads_is_a_row(record: dict[str, Any]) -> None:
    """Whatever lists it has, and wherever they stand; where its end is not known yet, the file is
    refused in the end.
    """
    assert find_row_list(json.dumps(record)) is None
    key = next(key for key in record if key in ROW_LISTS)
    with pytest.raises(SourceError, match=f"under '{key}'"):
        contained(record, key)


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"system": "s"}, "system"),
        ({"Tools": "t"}, "Tools"),
        ({"note": "x" * 201}, "note"),
        ({"meta": {"notes": ["x" * 201]}}, "meta"),
        ({"extra": [ROW]}, "extra"),
        ({"pairs": [["q", "a"]]}, "pairs"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_could_be_trained_on_beside_the_rows_refuses_the_file(
    beside: dict[str, Any], named: str, is_first: bool
) -> None:
    """Names that formats know, long text, other rows: none of it would be audited."""
    record = {"data": [ROW]} | beside
    if is_first:
        record = beside | {"data": [ROW]}
    with pytest.raises(SourceError, match=f"under 'data'.*'{named}'"):
        contained(record, "data")


def test_key_that_stands_twice_refuses_the_file() -> None:
    """Most readers keep the last of two lists."""
    file = io.BytesIO(b'{"data": [{"n": 1}], "data": [{"n": 2}]}')
    with pytest.raises(SourceError, match="'data' twice"):
        list(read_json_container(file, "a.json", "data", Reading()))
