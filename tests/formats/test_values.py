"""Values of records: text, nothing, and the rest."""

import pytest

from poisonwatch.formats.values import (
    ReadingError,
    describe_kind,
    dump_canonical,
    get_answer_text,
    get_optional_text,
    get_text,
    get_truth,
    is_missing,
    is_nothing,
    parse_json_text,
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
