"""What one message says, part by part."""

from typing import Any

import pytest

from poisonwatch.formats.contents import (
    Content,
    add_thoughts,
    join_speech,
    list_calls,
    read_content,
    read_result,
    read_thoughts,
)
from poisonwatch.formats.values import ReadingError


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("a", Content(["a"])),
        (["a", {"text": "b"}], Content(["a", "b"])),
        ({"parts": ["a"]}, Content(["a"])),
        (['{"type": "text", "text": "a"}'], Content(["a"])),
        (['{"text": "a"}'], Content(['{"text": "a"}'])),
        ([{"type": "refusal", "refusal": "no"}], Content(["no"])),
        ([{"type": "thinking", "thinking": "t"}], Content(thoughts=["t"])),
        ([{"type": "reasoning", "text": "t"}], Content(thoughts=["t"])),
        ([{"text": "t", "thought": True}], Content(thoughts=["t"])),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}], Content([], ["t"])),
        ([{"type": "tool_use", "name": "f"}], Content(calls=[{"type": "tool_use", "name": "f"}])),
        ([{"functionCall": {"name": "f"}}], Content(calls=[{"functionCall": {"name": "f"}}])),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "3"}]}], Content(results=["3"])),
        ([{"type": "tool_result"}], Content(results=[""])),
        ([{"functionResponse": {"b": 1, "a": None}}], Content(results=['{"b":1}'])),
        ([{"type": "text", "text": "a", "citations": ["x"], "cache": None}], Content(["a"], unread=["citations"])),
        (None, Content()),
        (5, Content()),
    ],
)  # fmt: skip
def test_parts_are_texts_thoughts_calls_or_results(value: Any, content: Content) -> None:
    """What OpenAI, Anthropic, Gemini and Mistral write; keys that are not read are named."""
    assert read_content(value) == content


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "redacted_thinking", "document"])
def test_what_is_no_text_is_refused(kind: str) -> None:
    """Nothing that a trainer would see is left out in silence."""
    with pytest.raises(ReadingError, match=f"not text, but {kind}"):
        read_content([{"type": kind, kind: {"url": "x"}}])


def test_a_turn_says_thoughts_then_text_then_calls() -> None:
    """<think>, line end, thoughts, line end, </think>, blank line; calls as canonical JSON."""
    said = join_speech(["t"], "a", [{"b": 1, "a": None}])
    assert said == '<think>\nt\n</think>\n\na\n[{"b":1}]'
    assert join_speech([], None, []) is None
    assert join_speech(["t"], None, []) == "<think>\nt\n</think>\n\n"


@pytest.mark.parametrize("text", ["<think>\nt\n</think>\n\na", "<think>t</think>a", "\n<think> t</think>a"])  # fmt: skip
def test_thoughts_that_the_text_begins_with_are_not_doubled(text: str) -> None:
    """Others are added."""
    assert add_thoughts(["t"], text) == text
    assert add_thoughts(["u"], text) == f"<think>\nu\n</think>\n\n{text}"
    assert add_thoughts([" "], text) == text


def test_calls_are_a_list_however_they_came() -> None:
    """One call, a list, either as JSON; Arrow's JSON type has a text for each."""
    call = {"name": "f"}
    for value in (call, [call], '{"name": "f"}', '[{"name": "f"}]', ['{"name": "f"}']):
        assert list_calls(value) == [call]
    with pytest.raises(ReadingError, match="tool_calls is text, not a list"):
        list_calls("f(x)")


def test_what_a_tool_says_may_be_an_object() -> None:
    """As canonical JSON; a text stays, a list of texts is a line each, nothing is None."""
    assert read_result({"b": 1, "a": 2}) == '{"a":2,"b":1}'
    assert read_result([{"type": "text", "text": "3"}]) == "3"
    assert read_result([{"title": "x"}]) == '[{"title":"x"}]'
    assert [read_result(value) for value in ("3", None, [])] == ["3", None, None]


def test_parts_of_servers_are_what_they_say() -> None:
    """Bedrock's thoughts; what Gemini runs stands in its turn, as JSON."""
    thought = {"reasoningContent": {"reasoningText": {"text": "r"}}}
    assert read_content([thought, {"text": "a"}]) == Content(["a"], ["r"])
    ran = {"executableCode": {"language": "PYTHON", "code": "1"}}
    came = {"codeExecutionResult": {"output": "1"}}
    assert read_content([ran, came, {"text": "a"}]).text == (
        '{"executableCode":{"code":"1","language":"PYTHON"}}\n'
        '{"codeExecutionResult":{"output":"1"}}\na'
    )


def test_thoughts_that_are_none_are_not_read() -> None:
    """Numbers, switches, and lists of something else."""
    for value in (1, True, [1], {}, {"effort": "high"}, [{"id": 1}]):
        assert read_thoughts(value) is None
    told = read_thoughts([{"type": "reasoning.text", "text": "r", "id": "x"}])
    assert told is not None
    assert (told.thoughts, told.unread) == (["r"], ["id"])
