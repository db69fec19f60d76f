"""Turns from messages, transcripts and templates."""

import json
import time
from typing import Any

import pytest

from poisonwatch.sources.conversations import (
    ROLES,
    SHAREGPT_KEYS,
    ReadingError,
    Turn,
    check_template,
    describe_kind,
    get_optional_text,
    get_text,
    is_transcript,
    read_template_text,
    read_transcript,
    read_turns,
)

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"b": 2, "a": 1}'}}
CANONICAL = '[{"function":{"arguments":"{\\"b\\": 2, \\"a\\": 1}","name":"add"},"id":"1","type":"function"}]'


def turn(**message: Any) -> Turn:
    (found,) = read_turns([message], "messages")
    return found


@pytest.mark.parametrize(
    ("role", "meant"),
    [
        *((role, role) for role in ROLES),
        (" User ", "user"),
        ("human", "user"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("function_call", "assistant"),
        ("developer", "system"),
        ("function", "tool"),
        ("observation", "tool"),
    ],
)
def test_roles_have_one_name_whatever_they_are_called(role: str, meant: str) -> None:
    """Case and white space do not count; developer is system, function is tool."""
    assert turn(role=role, content="x") == Turn(meant, "x")
    assert read_turns([{"from": role, "value": "x"}], "conversations", SHAREGPT_KEYS) == (
        Turn(meant, "x"),
    )


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"role": "wizard"}, "'wizard'"),
        ({}, "''"),
        ({"role": 5}, "''"),
        ({"role": "\x1b[2J\ud800"}, r"'\\u\{1b\}\[2j\\u\{d800\}'"),
    ],
)
def test_unknown_roles_are_named_visibly(message: dict[str, Any], named: str) -> None:
    """No guess, and no control character in the words."""
    with pytest.raises(
        ReadingError, match=rf"^unknown role {named}; roles are system, user, assistant and tool$"
    ):
        read_turns([message], "messages")


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text", None])
def test_parts_of_text_are_a_line_each(kind: str | None) -> None:
    """[{type: text, text: a}, {type: text, text: b}] is a, line end, b; one part is its text."""
    part = {} if kind is None else {"type": kind}
    assert turn(role="user", content=[{**part, "text": "a"}, {**part, "text": "b"}]) == Turn(
        "user",
        "a\nb",
    )
    assert turn(role="user", content=["a"]) == Turn("user", "a")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "image_url": "x"}, ", but image_url$"),
        ({"type": "image", "text": "a caption"}, ", but image$"),
        ({"type": "text", "text": 5}, ", but text$"),
        ({"type": ["x"], "text": "a"}, "$"),
        (5, "$"),
    ],
)
def test_parts_that_are_no_text_cannot_be_read(part: Any, words: str) -> None:
    """Only text can be audited: nothing is left out in silence."""
    with pytest.raises(ReadingError, match=f"^a content has a part that is not text{words}"):
        turn(role="user", content=[{"type": "text", "text": "a"}, part])


@pytest.mark.parametrize("content", [None, 5, {"text": "x"}, []])
def test_content_that_is_no_text_is_missing(content: Any) -> None:
    """None, for validation to say so."""
    assert turn(role="user", content=content) == Turn("user", None)


def test_tool_calls_are_text_after_the_content() -> None:
    """Canonical JSON: sorted keys, no spaces, no nulls; however a table or a file wrote them."""
    padded = {**CALL, "index": None, "function": {**CALL["function"], "strict": None}}
    for calls in ([CALL], [padded], json.dumps([CALL]), [dict(reversed(CALL.items()))]):
        assert turn(role="assistant", content="Let me add.", tool_calls=calls) == Turn(
            "assistant",
            f"Let me add.\n{CANONICAL}",
        )
        assert turn(role="assistant", content=None, tool_calls=calls) == Turn(
            "assistant", CANONICAL
        )
    assert turn(role="assistant", content="", function_call={"name": "f"}) == Turn(
        "assistant",
        '[{"name":"f"}]',
    )
    assert turn(role="assistant", content="x", tool_calls=[], function_call=None) == Turn(
        "assistant",
        "x",
    )
    assert turn(role="assistant", content=None, tool_calls=None) == Turn("assistant", None)
    assert turn(role="tool", tool_call_id="1", content="3") == Turn("tool", "3")


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ("f(x)", "tool_calls is text, not a list"),
        (5, "tool_calls is a number, not a list"),
        ([b"x"], "tool_calls is not JSON"),
    ],
)
def test_tool_calls_that_are_none_cannot_be_read(calls: Any, words: str) -> None:
    """What was got."""
    with pytest.raises(ReadingError, match=f"^{words}$"):
        turn(role="assistant", content="x", tool_calls=calls)


@pytest.mark.parametrize("value", [None, 5, "x", "{}", '["x"]', [5], {"role": "user"}])
def test_what_is_no_list_of_messages_cannot_be_read(value: Any) -> None:
    """The words name the field, and what is asked of it."""
    with pytest.raises(ReadingError, match=r"^turns is not a list of \{from, value\}$"):
        read_turns(value, "turns", SHAREGPT_KEYS)


def test_transcripts_alternate_by_their_marks() -> None:
    """ "\\n\\nHuman:" and "\\n\\nAssistant:" begin turns, in any order; marks inside a line do not."""
    text = "Human: a Human: b\n\nAssistant:\n\nAssistant: c\n\nd\r\n\r\nHuman: e "
    assert is_transcript(text)
    assert read_transcript(text) == (
        Turn("user", "a Human: b"),
        Turn("assistant", ""),
        Turn("assistant", "c\n\nd"),
        Turn("user", "e"),
    )
    assert not is_transcript("Assistant: a")
    assert not is_transcript(["Human: a"])


@pytest.mark.parametrize(
    ("template", "text", "turns"),
    [
        (
            "Q: {prompt}\nA: {response}",
            "Q: a\nb\nA: c\nA: d",
            (Turn("user", "a\nb"), Turn("assistant", "c\nA: d")),
        ),
        (
            "Q: {prompt}\nA: {response}",
            "\n Q: a\r\nA: \n",
            (Turn("user", "a"), Turn("assistant", "")),
        ),
        (
            "{prompt} => {response}<end>\n",
            "a => b => c<end> \n",
            (Turn("user", "a"), Turn("assistant", "b => c")),
        ),
        ("[{system}] {prompt}: {response}", "[] a: b", (Turn("user", "a"), Turn("assistant", "b"))),
        (
            "[{system}] {prompt}: {response}",
            "[s] a: b",
            (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b")),
        ),
        ("A: {response}\nQ: {prompt}", "A: b\nQ: a", (Turn("user", "a"), Turn("assistant", "b"))),
        ("{{{prompt}}} {response}", "{a} b", (Turn("user", "a"), Turn("assistant", "b"))),
        ("{prompt}.*{response}", "a.b.*c", (Turn("user", "a.b"), Turn("assistant", "c"))),
    ],
)
def test_a_template_takes_texts_apart(
    template: str, text: str, turns: tuple[tuple[str, str], ...]
) -> None:
    """A placeholder ends where the next piece first occurs; pieces are text, not patterns; the
    order of turns is that of a conversation.
    """
    assert read_template_text(text, template) == turns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a => b</s>", "does not begin as the template does: '<s>'"),
        ("<s>a b</s>", r"lacks what the template has after \{prompt\}: '=>'"),
        ("<s>a => b", "does not end as the template does: '</s>'"),
    ],
)
def test_a_text_that_a_template_does_not_describe_cannot_be_read(text: str, words: str) -> None:
    """The words say where they part."""
    with pytest.raises(ReadingError, match=f"^the text {words}$"):
        read_template_text(text, "<s>{prompt} => {response}</s>")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Q: {prompt}", r"it must hold \{prompt\} and \{response\}, once each"),
        ("{prompt} {response} {prompt}", "once each"),
        ("{prompt}{response}", "something must stand between two placeholders"),
        ("{prompt} {response} {x}", r"\{x\} is not one of \{system\}, \{prompt\} and \{response\}"),
        ("{prompt!r} {response}", "is not one of"),
        ("{prompt.x} {response}", r"\{prompt\.x\} is not one of"),
        ("{prompt} {response", "expected '}'"),
    ],
)
def test_templates_that_make_no_sense_are_refused(template: str, words: str) -> None:
    """Why."""
    with pytest.raises(ValueError, match=words):
        check_template(template)


def test_a_hostile_text_takes_one_pass() -> None:
    """No pattern to blow up: 2 MB of separators in well under a second."""
    start = time.perf_counter()
    text = "Q: " + "\nA: " * 500_000
    with pytest.raises(ReadingError):
        read_template_text(text, "Q: {prompt}\nA: {response}</s>")
    assert read_transcript("Human:" + "\n\nHuman:" * 100_000)[-1] == Turn("user", "")
    assert time.perf_counter() - start < 5


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
