"""Lists that hold a conversation, told from others."""

import json
from typing import Any

import pytest

from poisonwatch.formats.lists import holds_both_sides, holds_conversation, is_list_of_texts

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("path", "value", "holds"),
    [
        ("turns", [USER], True),
        ("turns", json.dumps([USER]), True),
        ("turns", [["q", "a"]], True),
        ("turns", ["q", "a"], False),
        ("dialog", ["q", "a"], True),
        ("chat", "USER: q", True),
        ("chat", "q", False),
        ("items", [{"name": "x"}], False),
        ("items", [], False),
        ("items", 1, False),
    ],
)
def test_a_conversation_is_told_by_what_it_holds(path: str, value: Any, holds: bool) -> None:
    """Texts are one only where the name says so."""
    assert holds_conversation(path, value) == holds


def test_both_sides_begin_before_the_answer() -> None:
    """An answer alone is none, whatever it is made of."""
    assert holds_both_sides([USER, ANSWER])
    assert holds_both_sides(json.dumps([USER, ANSWER]))
    for value in ([USER], [ANSWER, ANSWER], ["q", "a"], "q", None):
        assert not holds_both_sides(value)


def test_texts_are_two_or_more() -> None:
    """And nothing but texts."""
    assert is_list_of_texts(["q", "a"])
    for value in (["q"], ["q", 1], "qa", [USER, ANSWER], None):
        assert not is_list_of_texts(value)
