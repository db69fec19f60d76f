"""Turns from lists of messages, however these are written."""

import json
from typing import Any

import pytest

from poisonwatch.formats.conversations import MessageReader, Turn
from poisonwatch.formats.messages import CONTENT_KEYS, ROLE_KEYS, TRAINED_KEYS
from poisonwatch.formats.roles import ROLES
from poisonwatch.formats.values import ReadingError

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"b": 2, "a": 1}'}}
CANONICAL = '[{"function":{"arguments":"{\\"b\\": 2, \\"a\\": 1}","name":"add"},"id":"1","type":"function"}]'


def read_turns(value: Any, name: str, **settings: Any) -> tuple[Turn, ...]:
    return MessageReader(**settings).read_turns(value, name)


def sharegpt() -> dict[str, Any]:
    return {"role_keys": ("from", *ROLE_KEYS), "content_keys": ("value", *CONTENT_KEYS)}


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
    assert read_turns([{"from": role, "value": "x"}], "conversations", **sharegpt()) == (
        Turn(meant, "x"),
    )


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"role": "wizard"}, "'wizard'"),
        ({"role": 5}, "'5'"),
        ({"role": [5]}, "''"),
        ({"role": "\x1b[2J\ud800"}, r"'\\u\{1b\}\[2j\\u\{d800\}'"),
    ],
)
def test_unknown_roles_are_named_visibly(message: dict[str, Any], named: str) -> None:
    """No guess, and no control character in the words."""
    with pytest.raises(
        ReadingError,
        match=rf"^unknown role {named}; roles are system, user, assistant and tool; source.roles says",
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


@pytest.mark.parametrize("content", [None, 5, {"x": "x"}, []])
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
        read_turns(value, "turns", **sharegpt())


def trained(**marks: Any) -> tuple[bool, tuple[str, ...]]:
    """Is a turn of the assistant with these marks trained on, and what of it is unread?"""
    reader = MessageReader()
    (found,) = reader.read_turns([{"role": "assistant", "content": "a", **marks}], "m")
    return not found.masked, tuple(reader.unread)


@pytest.mark.parametrize("key", TRAINED_KEYS)
def test_marks_say_whether_a_turn_is_trained(key: str) -> None:
    """0, false, and the same as text; a mark that cannot be kept to is unread."""
    for mark, wanted in ((0, False), (1, True), (False, False), ("false", False), (1.0, True)):
        assert trained(**{key: mark}) == (wanted, ())
    assert trained(**{key: None}) == (True, ())
    for other in (0.5, "some", -1):
        assert trained(**{key: other}) == (True, (f"m.{key}",))
    assert trained(masked=True) == (False, ())
    assert trained(weight=1, train=False) == (False, ())


def test_marks_on_others_than_the_assistant_are_unread() -> None:
    """They say nothing that could be kept to."""
    reader = MessageReader()
    reader.read_turns([{"role": "user", "content": "a", "train": True}], "m")
    assert list(reader.unread) == ["m.train"]


@pytest.mark.parametrize(
    ("message", "text", "unread"),
    [
        ({"content": "a", "reasoning_content": "t"}, "<think>\nt\n</think>\n\na", ()),
        ({"content": None, "thinking": "t"}, "<think>\nt\n</think>\n\n", ()),
        ({"content": "a", "reasoning": "t", "reasoning_content": "t"}, "<think>\nt\n</think>\n\na", ()),
        ({"content": "a", "reasoning_content": "t", "reasoning": "u"}, "<think>\nt\n</think>\n\na", ("m.reasoning",)),
        ({"content": "a", "reasoning": {"effort": 1}}, "a", ("m.reasoning",)),
        ({"content": "<think>\nt\n</think>\n\na", "thought": "t"}, "<think>\nt\n</think>\n\na", ()),
        ({"content": None, "refusal": "no"}, "no", ()),
        ({"content": "", "refusal": "no"}, "no", ()),
        ({"content": "a", "refusal": "no"}, "a", ("m.refusal",)),
        ({"content": "a", "function_calls": "f(x)"}, "a\nf(x)", ()),
        ({"content": 9}, "9", ()),
        ({"content": None}, None, ()),
        ({"content": "a", "name": "x", "id": None, "tags": []}, "a", ("m.name",)),
    ],
)  # fmt: skip
def test_an_assistants_turn_is_everything_that_it_says(
    message: dict[str, Any], text: str | None, unread: tuple[str, ...]
) -> None:
    """Thoughts, text, refusals; a text is missing where there is none of them."""
    reader = MessageReader()
    assert reader.read_turns([{"role": "assistant", **message}], "m") == (Turn("assistant", text),)
    assert tuple(reader.unread) == unread


def test_thoughts_of_others_are_unread() -> None:
    """No template would show them."""
    reader = MessageReader()
    reader.read_turns([{"role": "user", "content": "a", "thinking": "t"}], "m")
    assert list(reader.unread) == ["m.thinking"]


U, A = Turn("user", "q"), Turn("assistant", "a")


@pytest.mark.parametrize(
    ("value", "turns"),
    [
        ([{"speaker": "user", "text": "q"}, {"author": "bot", "content": "a"}], (U, A)),
        ([{"role": "user", "message": "q"}, {"role": "model", "parts": [{"text": "a"}]}], (U, A)),
        ([["q", "a"], ["q", "a"]], (U, A, U, A)),
        ([["q", None]], (U, Turn("assistant", None))),
        ([{"human": "q", "assistant": "a"}], (U, A)),
        ([{"system": "s", "input": "q", "output": "a"}], (Turn("system", "s"), U, A)),
        ([{"input": "q", "output": "a", "output_with_loss": False}], (U, A._replace(masked=True))),
        (["q", "a", "q"], (U, A, U)),
        (['{"role": "user", "content": "q"}', '{"role": "bot", "content": "a"}'], (U, A)),
        ('[["q", "a"]]', (U, A)),
        (
            [
                {"label": False, "text": "q"},
                {"label": True, "text": "a"},
                {"label": "true", "text": "b"},
            ],
            (U, Turn("assistant", "ab")),
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "content": "3"}, {"type": "text", "text": "q"}],
                }
            ],
            (Turn("tool", "3"), U),
        ),
        ([{"role": "tool", "content": {"b": 1, "a": None}}], (Turn("tool", '{"b":1}'),)),
    ],
)  # fmt: skip
def test_conversations_are_lists_of_many_kinds(value: Any, turns: tuple[Turn, ...]) -> None:
    """Messages, pairs, texts by turns, segments; all of it, or each item, as JSON in a text."""
    assert MessageReader().read_turns(value, "m", texts=True) == turns


@pytest.mark.parametrize("value", [["q", 5], [["a", "b", "c"]], [[{"x": 1}, "b"]], [["a", 5]]])
def test_lists_of_something_else_cannot_be_read(value: Any) -> None:
    """No guess."""
    with pytest.raises(ReadingError, match=r"^m is not a list of \{role, content\}$"):
        MessageReader().read_turns(value, "m", texts=True)
    with pytest.raises(ReadingError):
        MessageReader().read_turns(["q", "a"], "chosen")


def test_tools_in_messages_are_found() -> None:
    """Where they stand, too."""
    reader = MessageReader()
    reader.read_turns([{"role": "system", "content": "s", "functions": "[1]"}], "m")
    assert reader.tools == {"m.functions": "[1]"}


def test_a_tool_may_say_nothing_and_a_system_need_not() -> None:
    """Null is then no missing text; of others it is, and so is what is no text."""
    null = [{"role": role, "content": None} for role in ("system", "user", "assistant", "tool")]
    assert read_turns(null, "m") == (Turn("user", None), Turn("assistant", None), Turn("tool", ""))
    assert turn(role="system", content=5) == Turn("system", None)


USER, ANSWER = Turn("user", "q"), Turn("assistant", "a")


@pytest.mark.parametrize(
    ("value", "turns"),
    [
        ([["user", "q"], ["assistant", "a"]], (USER, ANSWER)),
        ([["system", "s"], ["human", "q"], ["ai", "a"]], (Turn("system", "s"), USER, ANSWER)),
        (['["user", "q"]', '["assistant", "a"]'], (USER, ANSWER)),
        ([["user", "q"], ["assistant", [{"type": "text", "text": "a"}]]], (USER, ANSWER)),
        ([["user", "q"], ["b", "a"]], (Turn("user", "user"), Turn("assistant", "q"),
                                       Turn("user", "b"), ANSWER)),
        ([["q", "a"]], (USER, ANSWER)),
    ],
)  # fmt: skip
def test_pairs_are_roles_and_texts_where_all_begin_with_roles(
    value: Any, turns: tuple[Turn, ...]
) -> None:
    """LangChain's; else they are what is asked and what is answered."""
    assert MessageReader().read_turns(value, "messages", texts=True) == turns


@pytest.mark.parametrize(
    "message",
    [
        {"Role": "user", "Content": "q"},
        {"ROLE": "user", "text": "q"},
        {"sender": "human", "text": "q"},
        {"author": {"role": "user", "name": None}, "content": {"parts": ["q"]}},
        {"type": "human", "content": "q"},
        {"type": "human", "data": {"content": "q"}},
        {"parts": [{"text": "q"}]},
        {"role": "user", "content": {"type": "text", "text": "q"}},
        {"role": "user", "content": {"content": "q"}},
        {"role": "user", "content": [{"type": "text", "content": "q"}]},
        {"role": "user", "content": [{"type": "thinking", "thinking": "q"}]},
    ],
)
def test_a_message_says_its_role_and_text_by_many_keys(message: dict[str, Any]) -> None:
    """In whatever case; thoughts are the assistant's alone."""
    reader = MessageReader()
    assert reader.read_turns([message], "messages") == (USER,)
    assert not reader.unread


@pytest.mark.parametrize("message", [{"who": "user", "content": "q"}, {"type": "x", "text": "q"}])
def test_a_message_without_a_role_names_its_keys(message: dict[str, Any]) -> None:
    """And the setting that helps."""
    words = rf"keys {', '.join(message)}, .*source\.fields .*\{{role: who"
    with pytest.raises(ReadingError, match=words):
        read_turns([message], "messages")


@pytest.mark.parametrize(
    "said",
    [
        {"reasoningContent": "r"},
        {"tool_plan": "r"},
        {"reasoning": {"content": "r"}},
        {"reasoning_details": [{"type": "reasoning.text", "text": "r"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "r"}]},
        {"thinking": ["r"]},
    ],
)
def test_thoughts_have_many_names(said: dict[str, Any]) -> None:
    """Trained like the answer that they stand before."""
    assert turn(role="assistant", content="a", **said).text == "<think>\nr\n</think>\n\na"


@pytest.mark.parametrize("calls", ["None", "null", "nan", False, [], [None], " "])
def test_calls_that_tables_write_for_null_are_none(calls: Any) -> None:
    """And stay told nowhere."""
    reader = MessageReader()
    message = {"role": "assistant", "content": "a", "tool_calls": calls}
    assert reader.read_turns([message], "messages") == (ANSWER,)
    assert not reader.unread


def test_calls_are_found_however_they_are_called() -> None:
    """toolCalls, too; a second field of calls is told."""
    assert turn(role="assistant", toolCalls=[{"name": "f"}]).text == '[{"name":"f"}]'
    reader = MessageReader()
    message = {"role": "assistant", "toolCalls": [{"name": "f"}], "FunctionCall": {"name": "g"}}
    reader.read_turns([message], "messages")
    assert list(reader.unread) == ["messages.FunctionCall"]
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    (said,) = read_turns([call], "output")
    assert said.role == "assistant"
    assert '"name":"f"' in (said.text or "")


@pytest.mark.parametrize(
    ("content", "text"), [(5, "5"), (False, "false"), ({"x": 1}, '{"x":1}'), ("", "")]
)
def test_what_a_tool_gives_back_is_text_as_json_writes_it(content: Any, text: str) -> None:
    """A number, a truth value, an object."""
    assert turn(role="tool", content=content) == Turn("tool", text)
