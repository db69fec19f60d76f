"""Fields that are not read are counted, shown by an example, and warned of where they hold text."""

import json
import time
from typing import Any

import pytest

from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Draft
from poisonwatch.formats.paths import show_path
from poisonwatch.formats.values import LONG_TEXT
from poisonwatch.sources.open import SourceRows
from poisonwatch.sources.unread import (
    MAX_NAMES,
    OTHER_NAMES,
    UnreadCounter,
    UnreadField,
    count_unread,
    describe_unread,
    warn_of_long,
)

LONG = "x" * (LONG_TEXT + 1)


def rows_with(*records: tuple[dict[str, Any], tuple[str, ...]]) -> SourceRows:
    """Rows of these records, each with the names of its unread fields."""
    raw, drafts = [], []
    for position, (record, unread) in enumerate(records):
        raw.append(RawRow("s", position, f"s, line {position + 1}", record))
        drafts.append(Draft(unread=unread))
    return SourceRows(raw, drafts, {})


def holding(value: Any, count: int, total: int) -> list[str]:
    """The warnings of `total` rows of which the first `count` hold a value under x."""
    records = [({"x": value}, ("x",))] * count + [({}, ())] * (total - count)
    return warn_of_long(count_unread(rows_with(*records)), total)


def test_fields_are_counted_in_rows_the_commonest_first() -> None:
    """With the share of all rows and the first value; nothing is found where all is read."""
    rows = rows_with(
        ({"id": "a7", "score": 0.5}, ("id", "score")),
        ({"id": "a8", "score": 1}, ("score",)),
        ({}, ()),
        ({"score": [1, 2]}, ("score",)),
    )
    assert count_unread(rows) == [
        UnreadField("score", 3, 0.75, "0.5", 0),
        UnreadField("id", 1, 0.25, "a7", 0),
    ]
    assert count_unread(rows_with(({}, ()))) == count_unread(rows_with()) == []


def test_names_lead_into_lists_mappings_and_json_text() -> None:
    """A key that holds a dot is a key; the first value that is none of nothing's is the example."""
    messages = [{"name": None}, {"name": "ann"}]
    for record, name in (
        ({"messages": messages}, "messages.name"),
        ({"messages": json.dumps(messages)}, "messages.name"),
        ({"messages.name": "ann"}, "messages\\.name"),
        ({"meta": {"a.b": {"c": "ann"}}}, "meta.a\\.b.c"),
        ({"turns": [{"meta": {"by": "ann"}}, {"meta": {"by": float("nan")}}]}, "turns.meta.by"),
    ):
        (field,) = count_unread(rows_with((record, (name,))))
        assert (field.name, field.example) == (show_path(name), "ann")
    (field,) = count_unread(rows_with(({}, ("gone",))))
    assert (field.rows, field.example) == (1, "")


def test_ignored_fields_and_what_lies_within_them_are_not_told_of() -> None:
    """By their whole names."""
    rows = rows_with(({}, ("id", "meta.by", "metadata", "messages.name")))
    found = count_unread(rows, ignore=["id", "meta", "messages.name", "x"])
    assert [field.name for field in found] == ["metadata"]


def test_long_text_that_is_not_read_is_a_warning_with_what_to_do() -> None:
    """It names the field, how many rows, and both settings."""
    (warning,) = holding(LONG, 1204, 1204)
    assert "the field x " in warning
    assert "1,204 rows" in warning
    assert "source.fields" in warning
    assert "source.ignore" in warning


@pytest.mark.parametrize(
    ("count", "total", "warned"),
    [(1, 1, True), (3, 3, True), (4, 6, False), (5, 50, True), (5, 51, False), (9, 90, True)],
)
def test_a_tenth_of_the_rows_and_five_or_all_make_it_one(
    count: int, total: int, warned: bool
) -> None:
    """A long note here and there is none."""
    assert bool(holding(LONG, count, total)) is warned


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        (LONG, True),
        ("x" * LONG_TEXT, False),
        ([{"text": LONG}], True),
        (["short"] * 500, False),
        (list(range(500)), False),
        (json.dumps(list(range(500))), True),
        (10**300, False),
    ],
)
def test_a_text_is_long_by_its_characters(value: Any, warned: bool) -> None:
    """Wherever it stands within the value; numbers and lists of short texts are none."""
    assert bool(holding(value, 9, 9)) is warned


def test_the_line_shows_fields_with_counts_and_examples() -> None:
    """Of many fields the first, and how many others there are."""
    rows = rows_with(*[({"score": 0.5, "id": "a7"}, ("score", "id"))] * 1204)
    line = describe_unread(count_unread(rows))
    assert line == "score (1,204 rows, as 0.5), id (1,204 rows, as a7)"
    many = rows_with(({}, tuple(f"f{i}" for i in range(11))))
    assert describe_unread(count_unread(many)).endswith(" and 3 other fields")
    assert describe_unread([]) == ""


def test_hostile_names_and_values_are_shown_inert() -> None:
    """Nested without end, broken Unicode, control characters: one visible line."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    name = "\x1b[31m\u202e\n" + "n" * 500
    rows = rows_with(*[({name: "\x1b[2J\u202e\ud800" + LONG, "d": deep}, (name, "d"))] * 5)
    fields = count_unread(rows)
    for line in (describe_unread(fields), *warn_of_long(fields, 5)):
        assert line.isprintable()
        assert len(line) < 400


def test_what_is_ignored_is_no_key_that_begins_like_it() -> None:
    """A key that has dots itself lies in nothing, and is ignored by its whole name."""
    rows = rows_with(({"id": {"x": 1}, "id.y": LONG}, ("id.x", "id\\.y")))
    assert [field.name for field in count_unread(rows, ignore=["id"])] == ["id.y"]
    assert count_unread(rows, ignore=["id", "id.y"]) == []


@pytest.mark.parametrize("first", [1, 50])
def test_names_without_number_hide_no_common_one(first: int) -> None:
    """However many there are in every row, or all in the first ones; that some were not counted is
    said, and long texts among them are.
    """
    counter = UnreadCounter()
    for row in range(60):
        junk = {}
        if row < first:
            junk = {f"junk{row}-{i}": 1 for i in range(MAX_NAMES + 10)}
        record = junk | {"hidden": LONG}
        counter.add(record, tuple(record))
    fields = counter.list_fields()
    assert len(fields) == MAX_NAMES + 1
    assert fields[0].name == "hidden"
    assert fields[0].rows >= 58
    assert fields[0].long_rows >= 57
    assert fields[-1].name == OTHER_NAMES
    assert fields[-1].long_rows >= 1


def test_long_texts_under_ever_other_names_are_a_warning() -> None:
    """All names that are not counted by themselves are counted as one."""
    counter = UnreadCounter()
    for row in range(50):
        junk = {f"junk{i}": 1 for i in range(MAX_NAMES)} | {f"x{row}": LONG}
        counter.add(junk, tuple(junk))
    (warning,) = warn_of_long(counter.list_fields(), 50)
    assert OTHER_NAMES in warning


def test_a_row_of_many_names_and_messages_takes_no_long_time() -> None:
    """JSON text is parsed once a row, not once a name."""
    message = {f"k{i}": "x" for i in range(400)}
    text = json.dumps([message] + [{"role": "user", "content": "x" * 2000}] * 500)
    started = time.process_time()
    counter = UnreadCounter()
    counter.add({"messages": text}, tuple(f"messages.{key}" for key in message))
    assert len(counter.list_fields()) == 400
    assert time.process_time() - started < 0.5
