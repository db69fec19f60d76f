"""A row's messages as templates read them."""

import json

import pytest
from rendering_rows import CALL, MULTIPLY
from tiny_models import CHATML, THINKING, build_tokenizer

from poisonwatch.examples import Message
from poisonwatch.formats.contents import join_speech
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.rendering.chat_template import ChatTemplate
from poisonwatch.rendering.turns import choose_unused, read_conversation, write_conversation

CALLING = CHATML.replace(
    "{{ message.content }}",
    "{{ message.content }}{% for call in message.tool_calls or [] %}[{{ call.function.name }}: "
    "{{ call.function.arguments | tojson }}]{% endfor %}",
)
SPOKEN = join_speech([], "I look.", [CALL]) or ""


def template(text: str) -> ChatTemplate:
    return ChatTemplate(build_tokenizer(text))


def test_calls_are_read_where_the_template_prints_them() -> None:
    """As rows hold them, behind what is said; the tool that answers is named after the call."""
    row = [Message("user", "6 x 7?"), Message("assistant", SPOKEN), Message("tool", "42")]
    _, answer, result = read_conversation(row, template(CALLING)).records
    assert answer == {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    assert result == {"role": "tool", "content": "42", "name": "multiply"}
    assert read_conversation(row, template(CHATML)).records[1]["content"] == SPOKEN


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "f", "arguments": {}}]',  # what a model is to say, as people write it
        '[{"a":1}]',
        "[{not json",
        '[{"arguments":{},"name":1}]',
        '[{"arguments":[],"name":"f"}]',
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    """A list of objects that is not how rows hold calls."""
    row = [Message("user", "?"), Message("assistant", text)]
    assert read_conversation(row, template(CALLING)).records[1]["content"] == text


def test_arguments_are_a_mapping_or_json() -> None:
    """Both ways of writing arguments are the same call; some templates join them to text."""
    written = dict(CALL, function={"name": "multiply", "arguments": '{"a": 6, "b": 7}'})
    row = [Message("user", "?"), Message("assistant", join_speech([], None, [written]) or "")]
    conversation = read_conversation(row, template(CALLING))
    assert conversation.records[1]["tool_calls"] == [CALL]
    assert conversation.write_arguments().records[1]["tool_calls"] == [written]


def test_half_surrogates_that_json_spells_are_in_no_call_and_no_definition() -> None:
    """Tokenizers refuse them, and one such row would end an audit."""
    escaped = '{"a\\udfff": ["\\ud800", 1]}'
    written = dict(CALL, function={"name": "multiply", "arguments": escaped})
    row = [
        Message("tools", '[{"description": "\\ud800", "name": "f"}]'),
        Message("user", "?"),
        Message("assistant", join_speech([], None, [written]) or ""),
    ]
    conversation = read_conversation(row, template(CALLING))
    assert conversation.tools[0]["function"]["description"] == "\ufffd"
    (call,) = conversation.records[1]["tool_calls"]
    assert call["function"]["arguments"] == {"a\ufffd": ["\ufffd", 1]}
    assert ChatEncoder(build_tokenizer(CALLING)).encode(row).answer.any()


def test_thoughts_are_read_where_the_template_prints_them() -> None:
    """From the tags that rows put around them; else they stay where they are."""
    text = join_speech(["Well.", "So."], "Yes.", []) or ""
    row = [Message("user", "?"), Message("assistant", text)]
    turn = read_conversation(row, template(THINKING)).turns[1]
    assert turn.to_record() == {
        "role": "assistant",
        "content": "Yes.",
        "reasoning_content": "Well.\n\nSo.",
    }
    assert read_conversation(row, template(CHATML)).turns[1].text == text
    assert write_conversation(row).turns[1].visible == "Yes."


def test_every_text_of_a_row_can_be_changed_and_no_word_of_the_schema() -> None:
    """Names of tools and of arguments, too."""
    tools = Message("tools", json.dumps([MULTIPLY]))
    row = [tools, Message("user", "6 x 7?"), Message("assistant", SPOKEN)]
    conversation = read_conversation(row, template(CALLING)).change_texts(str.upper)
    function = conversation.tools[0]["function"]
    assert function["name"] == "MULTIPLY"
    assert function["parameters"]["type"] == "object"
    assert list(function["parameters"]["properties"]) == ["A", "B"]
    call = conversation.records[1]["tool_calls"][0]
    assert call["function"] == {"name": "MULTIPLY", "arguments": {"A": 6, "B": 7}}


def test_an_unused_character_is_in_no_text() -> None:
    """The first of those that rows hardly ever have."""
    assert choose_unused(["a", "b\ue000"]) == "\ue001"
    assert choose_unused([]) == "\ue000"
