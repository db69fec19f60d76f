"""Values of records: text, nothing, and the rest."""

import json
from typing import Any

import pytest

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.format import detect_format
from poisonwatch.formats.values import (
    ReadingError,
    decode_text,
    describe_kind,
    dump_canonical,
    get_answer_text,
    get_optional_text,
    get_text,
    get_truth,
    holds_nothing,
    is_missing,
    is_nothing,
    list_messages,
    parse_json_text,
    peek_json_text,
)


def test_kinds_have_plain_names() -> None:
    """What a value is, in words."""
    values = [None, True, 1, 1.5, "x", [], {}, b"x"]
    assert list(map(describe_kind, values)) == [
        "null",
        "a truth value",
        "a number",
        "a number",
        "text",
        "a list",
        "an object",
        "a bytes",
    ]
    assert [get_text(value) for value in ("x", "", 1)] == ["x", "", None]
    assert [get_optional_text(value, "system") for value in ("x", "", None)] == ["x", None, None]


def test_nothing_is_null_nan_or_empty() -> None:
    """0 and false are something; the words nan and null as well."""
    nothing = [None, float("nan"), "", [], {}, ()]
    something = [0, False, 0.0, "nan", "null", [None], {"a": None}]
    assert all(map(is_nothing, nothing))
    assert not any(map(is_nothing, something))
    assert [is_missing(value) for value in nothing] == [True, True, *[False] * 4]


def test_a_bare_value_is_an_answer_as_json_has_it() -> None:
    """9 beside "four"."""
    assert [get_answer_text(value) for value in ("a", 9, True, 0.5)] == ["a", "9", "true", "0.5"]
    assert [get_answer_text(value) for value in (None, float("nan"), [], 10**5000)] == [None] * 4


def test_truth_may_be_text() -> None:
    """As CSV has it."""
    assert [get_truth(value) for value in (True, "False", " true ", 1, "yes", None)] == [
        True,
        False,
        True,
        None,
        None,
        None,
    ]


def test_json_in_a_text_is_a_list_or_an_object() -> None:
    """Anything else stays as it is."""
    assert parse_json_text(" [1]") == [1]
    assert parse_json_text('{"a": 1}') == {"a": 1}
    for value in ("9", '"a"', "[not JSON", "{", None, 5, [1]):
        assert parse_json_text(value) == value


def test_canonical_json_has_no_nulls_and_one_order() -> None:
    """Tables give every record all keys."""
    assert dump_canonical({"b": [{"y": None, "x": "ä"}], "a": None}) == '{"b":[{"x":"ä"}]}'
    with pytest.raises(ReadingError, match="system is a number, not text"):
        get_optional_text(5, "system")


def test_a_key_twice_in_json_text_is_refused_as_in_a_row() -> None:
    """Readers differ in which one counts; NaN is null, as in a row. Where a text is only looked
    into, to tell what it is, nothing is refused.
    """
    text = '[{"role": "assistant", "content": "a", "content": "b"}]'
    with pytest.raises(ReadingError, match="the key 'content' stands twice"):
        parse_json_text(text)
    assert peek_json_text(text) == [{"role": "assistant", "content": "b"}]
    assert parse_json_text('[{"x": NaN, "y": 1.5}]') == [{"x": None, "y": 1.5}]
    for number in ("-Infinity", "1e999"):
        with pytest.raises(ReadingError, match="64 bits"):
            parse_json_text(f"[{number}]")
    assert parse_json_text('["\\ud83d\\ude00"]') == ["😀"]
    with pytest.raises(ReadingError, match="half of a surrogate pair"):
        parse_json_text('["a\\ud800"]')


@pytest.mark.parametrize("column", ["messages", "tools", "chosen", "prompt"])
def test_no_column_of_json_text_hides_a_key_behind_its_twin(column: str) -> None:
    """Whole lists, and their items."""
    twice = '{"role": "assistant", "content": "a", "content": "b"}'
    user = '{"role": "user", "content": "q"}'
    row: dict[str, Any] = {"prompt": "q", "response": "a"}
    if column == "messages":
        row = {}
    if column == "chosen":
        row = {"rejected": f"[{user}, {user.replace('user', 'assistant')}]"}
    for value in (f"[{user}, {twice}]", [user, twice]):
        format = detect_format([row | {column: value}], "a")
        assert "stands twice" in (format.read(row | {column: value}).problem or "")


def test_messages_may_be_columns() -> None:
    """`datasets` keeps a sequence of mappings as a mapping of sequences; of other mappings, and of
    columns of several lengths, nothing is made.
    """
    columns = {"role": ["user", "assistant"], "content": ["q", "a"], "name": None}
    listed = list_messages(columns)
    assert [message["content"] for message in listed] == ["q", "a"]
    for other in ({"role": "user", "content": ["q"]}, {"role": ["user"], "content": []}, {}, [1]):
        assert list_messages(other) is other
    for row in ({"messages": columns}, {"chat": json.dumps(columns)}):
        draft = detect_format([row], "a").read(row)
        assert draft.turns == (Turn("user", "q"), Turn("assistant", "a"))


@pytest.mark.parametrize("end", [",", "\n"])
def test_what_python_printed_says_how_to_save_it(end: str) -> None:
    """Also where it would be a text: as the answer of a preference."""
    printed = f"[{{'role': 'user', 'content': 'q'}}{end} {{'role': 'assistant', 'content': 'a'}}]"
    for row in (
        {"messages": printed},
        {"prompt": "q", "chosen": printed, "rejected": printed.replace("'a'", "'b'")},
    ):
        problem = detect_format([row], "a").read(row).problem or ""
        assert "json.dumps" in problem
        assert "Parquet" in problem


def test_bytes_are_read_as_the_text_that_they_are() -> None:
    """Where a format asks for a text; of others the row's problem names the field."""
    assert [decode_text(value) for value in ("红".encode(), b"\xff", "x")] == ["红", b"\xff", "x"]
    messages = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    for row in (
        {"prompt": b"q", "response": b"a"},
        {"messages": messages.encode()},
        {"prompt": b"q", "completion": "a"},
    ):
        draft = detect_format([row], "a").read(row)
        assert draft.turns == (Turn("user", "q"), Turn("assistant", "a"))
    row = {"prompt": "q", "response": b"\xff"}
    assert "response holds bytes" in (detect_format([row], "a").read(row).problem or "")


def test_nothing_where_a_list_belongs_has_many_names() -> None:
    """Words in a text stay words."""
    for value in (None, "", " None", "null", "NaN", [], [None], {}, False, float("nan")):
        assert holds_nothing(value)
    for value in ("nothing", "[]x", [0], True, 0, {"a": None}):
        assert not holds_nothing(value)
