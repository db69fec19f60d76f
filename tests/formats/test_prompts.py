"""What stands before an answer."""

import json
from typing import Any

import pytest

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import Fields
from poisonwatch.formats.prompts import (
    read_history,
    read_prompt_turns,
    read_system,
    read_tools,
)
from poisonwatch.formats.values import ReadingError

TOOL = {"type": "function", "function": {"name": "f", "strict": None}}
CANONICAL = '[{"function":{"name":"f"},"type":"function"}]'


@pytest.mark.parametrize(
    "record",
    [
        {"tools": [TOOL]},
        {"functions": [TOOL]},
        {"tools": json.dumps([TOOL])},
        {"tools": [json.dumps(TOOL)]},
        {"tools": [], "input": {"messages": [], "tools": [TOOL]}},
    ],
)
def test_tools_are_canonical_json_wherever_they_stand(record: dict[str, Any]) -> None:
    """A list, JSON in a text, beside the messages of a prompt."""
    assert read_tools(Fields(record)) == (Turn("tools", CANONICAL),)


@pytest.mark.parametrize("tools", [None, [], "[]", "", float("nan"), {}])
def test_no_tools_are_no_turn(tools: Any) -> None:
    """Nothing was left over, either."""
    fields = Fields({"tools": tools})
    assert read_tools(fields) == ()
    assert fields.list_unread([]) == ()


def test_tools_that_are_no_json_stay_as_they_are() -> None:
    """A text is in the prompt as a text; what is none of these is unread."""
    assert read_tools(Fields({"tools": "search(x)"})) == (Turn("tools", "search(x)"),)
    fields = Fields({"tools": 5})
    assert (read_tools(fields), fields.list_unread([])) == ((), ("tools",))
    with pytest.raises(ReadingError, match=r"^tools is not JSON$"):
        read_tools(Fields({"tools": [b"x"]}))


@pytest.mark.parametrize(
    "record",
    [
        {"system": "S"},
        {"system_prompt": "S"},
        {"SYSTEM_MESSAGE": "S"},
        {"system": [{"text": "S"}]},
        {"system": '[{"text": "S"}]'},
        {"systemInstruction": {"role": "system", "parts": [{"text": "S"}]}},
    ],
)
def test_the_systems_words_are_a_turn(record: dict[str, Any]) -> None:
    """A text or parts, under the names that trainers have."""
    assert read_system(Fields(record), ("system",)) == (Turn("system", "S"),)


def test_what_is_left_over_of_the_systems_parts_is_told() -> None:
    """And what is no text is refused."""
    fields = Fields({"system": [{"text": "S", "cache": {"type": "x"}}]})
    assert read_system(fields, ("system",)) == (Turn("system", "S"),)
    assert fields.list_unread([]) == ("system.cache",)
    with pytest.raises(ReadingError, match="system has a part that is not text"):
        read_system(Fields({"system": [{"type": "tool_use", "name": "f"}]}), ("system",))


def test_context_is_the_systems_where_a_format_says_so() -> None:
    """Where it is a text; a list of documents is not read."""
    assert read_system(Fields({"context": "C"}), ("system", "context")) == (Turn("system", "C"),)
    assert read_system(Fields({"context": {"x": 1}}), ("system", "context")) == ()
    with pytest.raises(ReadingError, match=r"^system is a number, not text$"):
        read_system(Fields({"system": 5}), ("system",))


@pytest.mark.parametrize(
    "history",
    [
        [["a", "b"]],
        '[["a", "b"]]',
        ["a", "b"],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        [{"input": "a", "output": "b"}],
    ],
)
def test_history_is_earlier_turns(history: Any) -> None:
    """Pairs, messages, texts by turns."""
    turns = (Turn("user", "a"), Turn("assistant", "b"))
    assert read_history(Fields({"history": history})) == turns


@pytest.mark.parametrize("history", [None, [], "[]", "", "long ago", 5])
def test_no_history_is_no_turn(history: Any) -> None:
    """Not even where the field holds something else, which is unread."""
    assert read_history(Fields({"history": history})) == ()


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"instruction": "I", "input": "x"}, "I\nx"),
        ({"instruction": "", "input": "x"}, "x"),
        ({"instruction": None, "input": "x"}, "x"),
        ({"instruction": "I", "input": float("nan")}, "I"),
        ({"instruction": "I", "context": "C"}, "I\nC"),
        ({"question": "q", "context": "C"}, "q\nC"),
        ({"question": "q", "context": ["C"]}, "q"),
        ({"question": "q", "input": "x"}, "q"),
        ({"input": "x"}, "x"),
        ({"context": "C"}, "C"),
        ({"prompt": None, "context": "C"}, "C"),
        ({"prompt": ""}, ""),
        ({"prompt": 5}, None),
        ({}, None),
    ],
)
def test_a_prompt_is_its_text_and_what_belongs_to_it(
    record: dict[str, Any], prompt: str | None
) -> None:
    """`input` belongs to an instruction, `context` to every prompt, a line each."""
    assert read_prompt_turns(Fields(record), "prompt") == (Turn("user", prompt),)


def test_a_prompt_may_be_a_request() -> None:
    """Of its {messages, ...} the rest is unread."""
    messages = [{"role": "user", "content": "a"}]
    fields = Fields({"input": {"messages": messages, "parallel": True}})
    assert read_prompt_turns(fields, "prompt") == (Turn("user", "a"),)
    assert fields.list_unread([]) == ("input.parallel",)


@pytest.mark.parametrize("value", ["None", "null", "nan", False, [None], [], ""])
def test_tools_that_tables_write_for_null_are_none(value: Any) -> None:
    """And are not told as unread."""
    fields = Fields({"tools": value, "history": value})
    assert read_tools(fields) == read_history(fields) == ()
    assert fields.list_unread([]) == ()


def test_tools_stand_in_bedrocks_configuration() -> None:
    """What else it says is told."""
    fields = Fields({"toolConfig": {"tools": [{"name": "f"}], "toolChoice": {"any": {"x": 1}}}})
    assert read_tools(fields) == (Turn("tools", '[{"name":"f"}]'),)
    assert fields.list_unread([]) == ("toolConfig.toolChoice",)


@pytest.mark.parametrize(
    "value",
    [
        {"role": "system", "content": "s"},
        {"text": "s"},
        {"parts": [{"text": "s"}]},
        [{"text": "s"}],
    ],
)
def test_the_system_may_be_an_object(value: Any) -> None:
    """A message, or a part; as a text, an object is a text like any other."""
    assert read_system(Fields({"system": value}), ("system",)) == (Turn("system", "s"),)
    text = '{"text": "s"}'
    assert read_system(Fields({"system": text}), ("system",)) == (Turn("system", text),)
