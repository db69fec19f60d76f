"""What training is on."""

from typing import Any

import pytest

from poisonwatch.formats.answers import (
    add_reasoning,
    choose_answer,
    choose_trained,
    get_thought,
    read_answer,
    read_label,
    unmask,
    unmask_answer,
)
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import Fields, Names
from poisonwatch.formats.values import ReadingError

USER, ONE, TWO = Turn("user", "u"), Turn("assistant", "1"), Turn("assistant", "2")


def mask(turn: Turn) -> Turn:
    return turn._replace(masked=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("four", "four"),
        (9, "9"),
        (0.5, "0.5"),
        (True, "true"),
        (None, None),
        (float("nan"), None),
        ({"role": "assistant", "content": "a"}, "a"),
        ({"content": "a"}, "a"),
        ([{"from": "gpt", "value": "a"}], "a"),
        ([{"role": "assistant", "content": 9}], "9"),
    ],
)
def test_an_answer_is_text_a_value_or_messages(value: Any, text: str | None) -> None:
    """Columns mix texts and numbers: 9 beside "four"."""
    assert read_answer(Fields({"output": value}), "output") == (Turn("assistant", text),)


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"response": "a", "completion": None}, "response"),
        ({"response": "", "completion": "a"}, "completion"),
        ({"response": "a", "completion": "a"}, "response"),
        ({"completion": "a", "answer": "b"}, "completion"),
        ({"output": "a"}, "output"),
        ({"answer": "b", "output": "a"}, "output"),
        ({}, "response"),
    ],
)
def test_of_several_answers_the_likeliest_counts(record: dict[str, Any], path: str) -> None:
    """response and completion before any alias."""
    fields = Fields(record)
    assert fields.get_path(choose_answer(fields)) == path


def test_reasoning_stands_before_the_answer() -> None:
    """Thoughts in a column; what only says whether to think, or how much, is none."""
    fields = Fields({"cot": "t"})
    assert add_reasoning(fields, (ONE,)) == (Turn("assistant", "<think>\nt\n</think>\n\n1"),)
    assert fields.list_unread([]) == ()
    for switch in ("on", "Off", "", True, None, {"effort": "low"}):
        fields = Fields({"reasoning": switch})
        assert (get_thought(fields), add_reasoning(fields, (ONE,))) == (None, (ONE,))


@pytest.mark.parametrize(
    ("label", "lowered", "unread"),
    [
        (False, True, False),
        ("False", True, False),
        ("false", True, False),
        (True, False, False),
        ("TRUE", False, False),
        (0, False, True),
        ("0", False, True),
        ("negative", False, True),
        (None, False, False),
    ],
)
def test_a_false_label_lowers_the_answer(label: Any, lowered: bool, unread: bool) -> None:
    """Of KTO; a number or a word is another label."""
    for name in ("label", "kto_tag"):
        fields = Fields({name: label})
        assert (read_label(fields) is False) == lowered
        assert fields.list_unread([]) == ((name,) if unread else ())


@pytest.mark.parametrize(
    ("score", "lowered"), [(0, True), (1, False), ("0", True), (0.0, True), (5, False)]
)
def test_a_label_that_the_user_names_may_be_a_number(score: Any, lowered: bool) -> None:
    """source.fields: {label: score}."""
    truth = read_label(Fields({"score": score}, Names({"label": "score"})))
    assert (truth is False) == lowered
    assert read_label(Fields({"score": score})) is None


@pytest.mark.parametrize("other", ["sports", 3, None, "", [1]])
def test_the_first_label_that_is_a_truth_value_counts(other: Any) -> None:
    """A class may stand beside it."""
    fields = Fields({"label": other, "kto_tag": False})
    assert read_label(fields) is False
    assert "kto_tag" not in fields.list_unread([])
    assert read_label(Fields({"label": True, "kto_tag": False})) is True


def test_what_is_trained_is_what_the_trainer_says() -> None:
    """marked: as marked; all: whatever the marks; last: the last turn of the assistant alone."""
    turns = (USER, mask(ONE), USER, TWO)
    assert choose_trained(turns, "marked") == turns
    assert choose_trained(turns, "all") == (USER, ONE, USER, TWO)
    assert choose_trained((USER, ONE, USER, TWO), "last") == turns
    assert choose_trained((USER, mask(ONE)), "last") == (USER, ONE)
    assert choose_trained((USER,), "marked") == (USER,)


def test_a_row_that_trains_nothing_names_the_setting() -> None:
    """Nobody would want it in silence."""
    with pytest.raises(ReadingError, match=r"no turn .* source\.train_on"):
        choose_trained((USER, mask(ONE)), "marked")


def test_trainers_of_preferences_know_no_marks() -> None:
    """Training is on what differs; on labels, on the whole answer, and what was said before is
    masked as it says.
    """
    turns = (USER, mask(ONE), USER, mask(ONE), Turn("tool", "t"), mask(TWO))
    assert not any(turn.masked for turn in unmask(turns))
    assert [turn.masked for turn in unmask_answer(turns)] == [0, 1, 0, 0, 0, 0]
    assert unmask_answer((mask(ONE),)) == (ONE,)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["a"], "a"),
        (["[1]"], None),
        ([{"name": "f", "arguments": {"x": 1}}], '[{"arguments":{"x":1},"name":"f"}]'),
        (['{"name": "f", "arguments": {}}'], '[{"arguments":{},"name":"f"}]'),
    ],
)
def test_a_list_may_hold_the_only_answer_or_calls(value: list[Any], text: str | None) -> None:
    """A list of one text is that text."""
    fields = Fields({"outputs": value})
    if text is None:
        with pytest.raises(ReadingError):
            read_answer(fields, "response")
        return
    assert read_answer(fields, "response") == (Turn("assistant", text),)


@pytest.mark.parametrize(
    ("value", "words"),
    [(["a", "b"], r"2 \(text\)"), ([1], r"1 \(a number\)")],
)
def test_a_list_of_answers_is_named_with_the_setting_that_helps(value: Any, words: str) -> None:
    """No guess which of them is trained."""
    with pytest.raises(ReadingError, match=rf"^outputs is a list of {words}.*source\.fields"):
        read_answer(Fields({"outputs": value}), "response")
