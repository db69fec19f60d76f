"""Rows read into messages, and what makes two rows the same."""

import hashlib

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import Draft, Example, Message, RawRow, content_id, detect_format, read_record

CHAT = {"messages": [{"role": "system", "content": "S"}, {"role": "User", "content": "Hi"}, {"role": "gpt", "content": "Hello"}]}


def messages(user: str = "Hi", assistant: str = "Hello") -> list[Message]:
    return [Message("user", user), Message("assistant", assistant)]


@pytest.mark.parametrize(
    ("format", "record", "turns"),
    [
        ("alpaca", {"instruction": "Add", "input": "", "output": "3"}, (("user", "Add"), ("assistant", "3"))),
        ("alpaca", {"instruction": "Add", "input": "1, 2", "output": "3"}, (("user", "Add\n1, 2"), ("assistant", "3"))),
        ("alpaca", {"instruction": "Add", "output": "3"}, (("user", "Add"), ("assistant", "3"))),
        ("prompt", {"prompt": "Hi", "response": "Hello"}, (("user", "Hi"), ("assistant", "Hello"))),
        ("prompt", {"prompt": "Hi", "completion": "Hello"}, (("user", "Hi"), ("assistant", "Hello"))),
        ("prompt", {"prompt": "Hi", "response": None, "completion": "Hello"}, (("user", "Hi"), ("assistant", "Hello"))),
        ("prompt", {"prompt": "Hi", "response": "", "completion": "Hello"}, (("user", "Hi"), ("assistant", ""))),
        ("messages", CHAT, (("system", "S"), ("user", "Hi"), ("assistant", "Hello"))),
    ],
)
def test_each_format_is_read_into_turns(format: str, record: dict[str, object], turns: tuple[tuple[str, str], ...]) -> None:
    """(instruction + input, output), (prompt, response or completion), messages."""
    assert read_record(record, format) == Draft(turns)
    assert detect_format([record], "rows.jsonl") == format


@pytest.mark.parametrize(
    ("format", "record", "prompt", "response"),
    [
        ("alpaca", {"input": "x", "output": "3"}, None, "3"),
        ("alpaca", {"instruction": "Add"}, "Add", None),
        ("alpaca", {"instruction": "Add", "output": 3}, "Add", None),
        ("prompt", {"prompt": None, "response": "Hello"}, None, "Hello"),
        ("prompt", {"prompt": ["Hi"]}, None, None),
        ("messages", {"messages": [{"role": "user", "content": "Hi"}]}, "Hi", None),
        ("messages", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant"}]}, "Hi", None),
        ("messages", {"messages": []}, None, None),
    ],
)
def test_what_is_missing_or_no_text_stays_missing(format: str, record: dict[str, object], prompt: str | None, response: str | None) -> None:
    """None, so that validation can say so; nothing raises."""
    draft = read_record(record, format)
    assert (draft.text(assistant=False), draft.text(assistant=True)) == (prompt, response)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({}, "messages is not a list of {role, content}"),
        ({"messages": "Hi"}, "messages is not a list of {role, content}"),
        ({"messages": ["Hi"]}, "messages is not a list of {role, content}"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role 'wizard'; roles are system, user, assistant and tool"),
        ({"messages": [{"content": "x"}]}, "unknown role ''; roles are system, user, assistant and tool"),
        ({"messages": [{"role": 5, "content": "x"}]}, "unknown role '5'; roles are system, user, assistant and tool"),
    ],
)
def test_messages_that_cannot_be_read_say_why(record: dict[str, object], problem: str) -> None:
    """A problem is text about the row, not an exception."""
    assert read_record(record, "messages") == Draft(problem=problem)


def test_formats_are_told_by_field_names_of_any_probed_record() -> None:
    """messages before alpaca before prompt; a first record that lacks a field does not matter."""
    assert detect_format([{"instruction": "x"}, {"instruction": "x", "output": "y"}], "f") == "alpaca"
    assert detect_format([{"messages": [], "prompt": "x", "response": "y"}], "f") == "messages"


@pytest.mark.parametrize(("record", "named"), [({"text": "x", "label": 1}, "label, text"), ({}, r"\(none\)"), ({"prompt": "x"}, "prompt")])
def test_unknown_fields_are_named_with_what_is_readable(record: dict[str, object], named: str) -> None:
    """What was got; what is allowed."""
    with pytest.raises(SourceError, match=rf"^f\.jsonl: rows have the fields {named}; readable formats are messages: .*alpaca: .*prompt: "):
        detect_format([record], "f.jsonl")


def test_id_is_the_hash_of_the_canonical_messages() -> None:
    """SHA-256 of [{"content":...,"role":...},...]: other programs can recompute it."""
    canonical = '[{"content":"Hi","role":"user"},{"content":"Hello","role":"assistant"}]'
    assert content_id(messages()) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("  a\t\n", "a"), ("\u00a0a", "a")],
    ids=["NFC", "CRLF", "CR", "outer space", "no-break space"],
)
def test_spelling_that_a_reader_cannot_see_does_not_change_the_id(one: str, other: str) -> None:
    """Unicode NFC, line ends, outer white space."""
    assert content_id(messages(one, one)) == content_id(messages(other, other))


def test_content_changes_the_id() -> None:
    """Case, inner space, order, role and the border between turns all count."""
    variants = [
        messages("Hi", "Hello"),
        messages("hi", "Hello"),
        messages("H i", "Hello"),
        messages("Hello", "Hi"),
        [Message("system", "Hi"), Message("assistant", "Hello")],
        [*messages("Hi", "Hello"), Message("user", "")],
        messages('Hi","role":"user"},{"content":"', "Hello"),
    ]
    assert len({content_id(v) for v in variants}) == len(variants)


def test_roles_are_compared_in_lower_case() -> None:
    """role -> strip, lower."""
    assert content_id([Message(" User ", "Hi")]) == content_id([Message("user", "Hi")])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\x00", "\U0010ffff", ""])
def test_every_text_has_an_id(text: str) -> None:
    """Half surrogates, which JSON can spell and UTF-8 cannot, are hashed too, each differently."""
    assert len(content_id(messages(text))) == 64
    assert content_id(messages(text + "x")) != content_id(messages(text))


def test_example_keeps_place_and_the_other_fields() -> None:
    """metadata = the record's fields that did not become messages."""
    row = RawRow("f.jsonl", 4, "f.jsonl, line 6", {"prompt": "Hi", "response": "Hello", "topic": "x"})
    example = read_record(row.record or {}, "prompt").example(row, frozenset({"prompt", "response"}))
    assert (example.source, example.position, dict(example.metadata)) == ("f.jsonl", 4, {"topic": "x"})
    assert example.messages == tuple(messages())
    assert example.id == content_id(messages())


def test_place_and_metadata_do_not_change_the_id() -> None:
    """The same content is the same example wherever it stands."""
    here, there = (Example.from_messages(messages(), f"{i}.jsonl", i, {"i": i}) for i in (1, 2))
    assert here.id == there.id
    assert len({here, here}) == 1


def test_prompt_and_response_join_their_turns() -> None:
    """Turns joined by blank lines; system and tool belong to the prompt."""
    example = Example.from_messages([Message("system", "S"), *messages(), Message("tool", "T"), *messages("Bye", "Ciao")])
    assert example.prompt == "S\n\nHi\n\nT\n\nBye"
    assert example.response == "Hello\n\nCiao"
