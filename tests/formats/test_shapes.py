"""Every row format read into turns: what is there, what is missing, and why a row cannot be read."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from format_rows import EVERY_FORMAT, TEMPLATE

from poisonwatch.examples import Example, Message, RawRow, compute_content_id
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.format import Draft, Format, detect_format
from poisonwatch.formats.shapes import SHAPES

CHAT = [
    {"role": "system", "content": "S"},
    {"role": "User", "content": "Hi"},
    {"role": "gpt", "content": "Hello"},
]
TURNS = (Turn("system", "S"), Turn("user", "Hi"), Turn("assistant", "Hello"))
HINT = "; source.fields says what other fields are, as in {prompt: question, response: answer}"


def read(record: Mapping[str, Any], format: Format) -> Example | None:
    return format.read(record).to_example(RawRow("f.jsonl", 0, "f.jsonl, line 1", record))


def nested(depth: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("name", "record", "turns"),
    [
        (
            "alpaca",
            {"instruction": "Add", "input": "", "output": "3"},
            (Turn("user", "Add"), Turn("assistant", "3")),
        ),
        (
            "alpaca",
            {"instruction": "Add", "input": "1, 2", "output": "3"},
            (Turn("user", "Add\n1, 2"), Turn("assistant", "3")),
        ),
        (
            "alpaca",
            {"instruction": "Add", "output": "3"},
            (Turn("user", "Add"), Turn("assistant", "3")),
        ),
        (
            "alpaca",
            {"instruction": "Add", "output": "3", "system": "S"},
            (Turn("system", "S"), Turn("user", "Add"), Turn("assistant", "3")),
        ),
        (
            "prompt",
            {"prompt": "Hi", "response": "Hello"},
            (Turn("user", "Hi"), Turn("assistant", "Hello")),
        ),
        (
            "prompt",
            {"prompt": "Hi", "completion": "Hello"},
            (Turn("user", "Hi"), Turn("assistant", "Hello")),
        ),
        (
            "prompt",
            {"prompt": "Hi", "response": None, "completion": "Hello"},
            (Turn("user", "Hi"), Turn("assistant", "Hello")),
        ),
        (
            "prompt",
            {"prompt": "Hi", "response": "", "completion": ""},
            (Turn("user", "Hi"), Turn("assistant", "")),
        ),
        ("messages", {"messages": CHAT}, TURNS),
        ("messages", {"messages": json.dumps(CHAT)}, TURNS),
        ("messages", {"messages": CHAT, "system": "S"}, TURNS),
        (
            "sharegpt",
            {
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Hello"},
                ],
                "system": "S",
            },
            TURNS,
        ),
        ("sharegpt", {"conversations": CHAT}, TURNS),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "Hi"}], "system": ""},
            (Turn("user", "Hi"),),
        ),
    ],
)
def test_each_format_is_read_into_turns_and_told_by_its_fields(
    name: str, record: dict[str, Any], turns: tuple[Any, ...]
) -> None:
    """(instruction + input, output), (prompt, response or completion), lists of messages."""
    format = detect_format([record], "rows.jsonl")
    assert (format.name, format.seen) == (name, (name,))
    assert format.read(record) == Format(name).read(record) == Draft(turns)


HELLO, BYE = (
    (Turn("user", "Hi"), Turn("assistant", "Hello")),
    (Turn("user", "Hi"), Turn("assistant", "Bye")),
)
HI_CHAT = [{"role": "user", "content": "Hi"}]
HH = "\n\nHuman: Hi\n\nAssistant:"


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Bye"},
        {"chosen": HI_CHAT + said("Hello"), "rejected": HI_CHAT + said("Bye")},
        {
            "prompt": "Hi",
            "chosen": HI_CHAT + said("Hello"),
            "rejected": HI_CHAT + said("Bye"),
            "messages": HI_CHAT + said("Hello"),
        },
        {"prompt": HI_CHAT, "chosen": said("Hello"), "rejected": said("Bye")},
        {
            "prompt": HI_CHAT,
            "chosen": said("Hello")[0],
            "rejected": {"from": "gpt", "value": "Bye"},
        },
        {"prompt": HI_CHAT, "chosen": "Hello", "rejected": "Bye"},
        {"chosen": f"{HH} Hello", "rejected": f"{HH} Bye"},
        {"chosen": f"{HH} Hello".strip(), "rejected": f"{HH} Bye\n".replace("\n", "\r\n")},
        {"prompt": HH, "chosen": "Hello", "rejected": "Bye"},
        {"prompt": "\n\nHuman: Hi", "chosen": "Hello", "rejected": "Bye"},
        {"prompt": HH, "chosen": f"{HH} Hello", "rejected": f"{HH} Bye"},
    ],
    ids=[
        "texts",
        "lists",
        "ultrafeedback",
        "trl",
        "single",
        "list and text",
        "hh",
        "hh stripped",
        "hh prompt",
        "hh turn",
        "hh twice",
    ],
)
def test_every_way_to_write_a_preference_is_the_same_one(record: dict[str, Any]) -> None:
    """(prompt, chosen, rejected): texts, lists of messages, transcripts; detected before the
    messages that such rows hold, too.
    """
    format = detect_format([record], "f")
    assert format.name == "preference"
    assert format.read(record) == Draft(HELLO, rejected=BYE)


def test_transcripts_have_any_number_of_turns() -> None:
    """ "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: d": text that only looks
    like one, after a plain prompt, is text.
    """
    many = "\n\nHuman: a\n\nwith Human: inside\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    draft = Format("preference").read({"chosen": f"{many} d", "rejected": f"{many} e"})
    assert draft.turns == (
        Turn("user", "a\n\nwith Human: inside"),
        Turn("assistant", "b"),
        Turn("user", "c"),
        Turn("assistant", "d"),
    )
    assert draft.rejected == (*draft.turns[:3], Turn("assistant", "e"))
    plain = Format("preference").read(
        {"prompt": "Write a play", "chosen": f"{many} d", "rejected": "no"}
    )
    assert plain.turns == (Turn("user", "Write a play"), Turn("assistant", f"{many} d"))


def test_system_stands_before_both_conversations_of_a_preference() -> None:
    """A field of its own is a first turn."""
    draft = Format("preference").read(
        {"system": "S", "prompt": "Hi", "chosen": "Hello", "rejected": "Bye"}
    )
    assert (draft.turns[0], draft.rejected[0]) == (Turn("system", "S"), Turn("system", "S"))


def test_the_same_conversation_has_the_same_id_in_every_format() -> None:
    """id = SHA-256 of the canonical messages, whatever the row looked like."""
    wanted = compute_content_id([Message("user", "Hi\nthere"), Message("assistant", "Hello")])
    found = [read(record, format) for format, record in EVERY_FORMAT]
    assert [example and example.id for example in found] == [wanted] * len(EVERY_FORMAT)
    assert {format.name for format, _ in EVERY_FORMAT} | {"preference"} == set(SHAPES)


@pytest.mark.parametrize(
    ("name", "record", "prompt", "response"),
    [
        ("alpaca", {"input": "", "output": "3"}, None, "3"),
        ("alpaca", {"instruction": "Add"}, "Add", None),
        ("alpaca", {"instruction": "Add", "output": float("nan")}, "Add", None),
        ("prompt", {"prompt": None, "response": "Hello"}, None, "Hello"),
        ("prompt", {"prompt": 5}, None, None),
        ("messages", {"messages": [{"role": "user", "content": "Hi"}]}, "Hi", None),
        (
            "messages",
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant"}]},
            "Hi",
            None,
        ),
        ("messages", {"messages": []}, None, None),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": 5}, {"from": "gpt", "value": "x"}]},
            None,
            "x",
        ),
        ("preference", {"chosen": "a", "rejected": "b"}, None, "a"),
        ("preference", {"prompt": "Hi", "chosen": None, "rejected": "b"}, "Hi", None),
        ("preference", {"prompt": HH, "chosen": None, "rejected": "b"}, "Hi", None),
    ],
)
def test_what_is_missing_or_no_text_stays_missing(
    name: str, record: dict[str, Any], prompt: str | None, response: str | None
) -> None:
    """None, so that validation can say so; such a row is no example, and nothing raises."""
    draft = Format(name).read(record)
    assert draft.problem is None
    assert (draft.text(assistant=False), draft.text(assistant=True)) == (prompt, response)
    assert read(record, Format(name)) is None


@pytest.mark.parametrize(
    ("name", "record", "problem"),
    [
        (
            "messages",
            {},
            "its fields are (none); what is read here is messages: messages, a list of {role, content}"
            + HINT,
        ),
        (
            "alpaca",
            {"messages": []},
            "its fields are messages; what is read here is alpaca: instruction, input (optional), output"
            + HINT,
        ),
        ("messages", {"messages": None}, "messages is not a list of {role, content}"),
        ("messages", {"messages": "Hi"}, "messages is not a list of {role, content}"),
        ("messages", {"messages": ["Hi"]}, "messages is not a list of {role, content}"),
        ("messages", {"messages": CHAT, "system": 5}, "system is a number, not text"),
        (
            "sharegpt",
            {"conversations": {"from": "human"}},
            "conversations is not a list of {from, value}",
        ),
        (
            "alpaca",
            {"instruction": "a", "input": ["x"], "output": "b"},
            "input is a list, not text",
        ),
        (
            "prompt",
            {"prompt": "a", "response": "b", "completion": "c"},
            "its response and its completion differ; source.fields says which counts, as in {response: completion}",
        ),
        ("preference", {"prompt": "a", "chosen": "b"}, "a text of rejected is missing or not text"),
        (
            "preference",
            {"prompt": "a", "chosen": "b", "rejected": {"role": "assistant"}},
            "a text of rejected is missing or not text",
        ),
        (
            "preference",
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            "chosen and rejected are the same",
        ),
        (
            "preference",
            {"prompt": "a", "chosen": "b", "rejected": HI_CHAT},
            "rejected does not end with an answer",
        ),
        (
            "preference",
            {"prompt": "a", "chosen": [], "rejected": "b"},
            "chosen does not end with an answer",
        ),
        (
            "preference",
            {"chosen": f"{HH} x\n\nHuman: no", "rejected": f"{HH} x"},
            "chosen does not end with an answer",
        ),
        (
            "preference",
            {"prompt": "a", "chosen": ["b", "b"], "rejected": "c"},
            "chosen is a list of 2 (text), not one answer or messages; source.fields says which "
            "field is the answer, as in {response: best_answer}",
        ),
        (
            "messages",
            {"messages": [{"role": "assistant", "tool_calls": nested(100_000)}]},
            "it is nested too deeply",
        ),
        (
            "messages",
            {"messages": "[" * 100_000},
            "messages is not a list of {role, content}",
        ),
    ],
)
def test_rows_that_cannot_be_read_say_why(name: str, record: dict[str, Any], problem: str) -> None:
    """A problem is text about the row, not an exception."""
    assert Format(name).read(record) == Draft(problem=problem)
    assert read(record, Format(name)) is None


def test_text_is_read_by_its_template() -> None:
    """A text that is written otherwise is a problem, one that is none as well."""
    format = Format("text", {"text": "body"}, TEMPLATE)
    assert format.read({"body": "Q: Hi\nA: Hello\nA: again\n"}) == Draft(
        (Turn("user", "Hi"), Turn("assistant", "Hello\nA: again"))
    )
    assert (
        format.read({"body": "Hi there"}).problem
        == "the text does not begin as the template does: 'Q:'"
    )
    assert format.read({"body": 5}).problem == "text is a number, not text"
    assert format.read({"text": "Q: Hi\nA: Hello"}).problem == (
        r"its fields are text; what is read here is text: body, by the template 'Q: {prompt}\nA: {response}'"
        + HINT
    )


def test_fields_are_found_under_other_names() -> None:
    """names[field] = path, whose dots reach into mappings unless there is such a field."""
    format = Format("sharegpt", {"conversations": "conversation.turns"})
    turns = [{"from": "human", "value": "Hi"}]
    for record, unread in (
        ({"conversation": {"turns": turns}}, ()),
        ({"conversation.turns": turns, "conversation": "x"}, ("conversation",)),
        ({"conversation": {"turns": turns, "id": 1}}, ("conversation.id",)),
    ):
        assert format.read(record) == Draft((Turn("user", "Hi"),), unread=unread)
    assert (
        format.read({"conversation": "x"}).problem == "conversations is not a list of {from, value}"
    )
    assert format.explanation == "sharegpt: conversation.turns, a list of {from, value}"


@pytest.mark.parametrize(
    ("fields", "record", "answer"),
    [
        ({}, {"prompt": "a", "completion": "c"}, "c"),
        ({"response": "completion"}, {}, "c"),
        ({"response": "response"}, {}, "b"),
    ],
)
def test_of_response_and_completion_the_named_one_counts(
    fields: dict[str, str], record: dict[str, str], answer: str
) -> None:
    """A row that has both must not show one and train the other."""
    record = record or {"prompt": "a", "response": "b", "completion": "c"}
    assert Format("prompt", fields).read(record).text(assistant=True) == answer


SYSTEM, USER = {"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}
CALL = {"role": "tool_call", "content": "{}"}
RESULT = {"role": "tool_response", "content": "3"}


@pytest.mark.parametrize(
    ("record", "chosen", "rejected"),
    [
        ({"messages": [USER, *said("a")], "rejected_response": "b"}, "Hi a", "Hi b"),
        ({"messages": [USER, *said("a"), USER, *said("b")], "rejected_response": "c"},
            "Hi a Hi b", "Hi a Hi c"),
        ({"messages": [USER, CALL, RESULT, *said("a")], "rejected_response": "b"},
            "Hi {} 3 a", "Hi {} 3 b"),
        ({"messages": [USER, CALL, RESULT, *said("a")],
            "rejected_response": [CALL, RESULT, *said("b")]}, "Hi {} 3 a", "Hi {} 3 b"),
        ({"messages": [USER, *said("a")], "rejected_messages": [USER, *said("b")]}, "Hi a", "Hi b"),
        ({"query": "Hi", "response": "a", "rejected_response": "b"}, "Hi a", "Hi b"),
        ({"query": "Hi", "response": "a", "rejected_response": "b", "history": [["x", "y"]]},
            "x y Hi a", "x y Hi b"),
        ({"messages": [USER], "chosen": said("a")[0], "rejected": said("b")[0]}, "Hi a", "Hi b"),
        ({"messages": [SYSTEM, USER, *said("a")], "chosen": "a", "rejected": "b"},
            "S Hi a", "S Hi b"),
        ({"messages": [USER, *said("x"), USER], "chosen": "a", "rejected": "b"},
            "Hi x Hi a", "Hi x Hi b"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"value": "a"},
            "rejected": {"from": "gpt", "value": "b"}}, "Hi a", "Hi b"),
        ({"instruction": "Hi", "input": "x", "chosen": "a", "rejected": "b"}, "Hi\nx a", "Hi\nx b"),
        ({"question": "Hi", "system": "S", "chosen": "a", "rejected": "b"}, "S Hi a", "S Hi b"),
        ({"context_messages": [USER], "chosen": said("a"), "rejected": said("b")}, "Hi a", "Hi b"),
        ({"input": {"messages": [USER]}, "preferred_output": said("a"),
            "non_preferred_output": said("b")}, "Hi a", "Hi b"),
        ({"input": {"messages": [USER], "tools": [1]}, "preferred_output": said("a"),
            "non_preferred_output": said("b")}, "[1] Hi a", "[1] Hi b"),
        ({"chosen": json.dumps([USER, *said("a")]), "rejected": json.dumps([USER, *said("b")])},
            "Hi a", "Hi b"),
        ({"prompt": "Hi", "chosen": 9, "rejected": "b"}, "Hi 9", "Hi b"),
    ],
)  # fmt: skip
def test_preferences_of_every_trainer_are_read_with_their_prompts(
    record: dict[str, Any], chosen: str, rejected: str
) -> None:
    """The prompt in a text, in messages, in the conversation that the chosen answer ends."""
    format = detect_format([record], "f")
    draft = format.read(record)
    assert (format.name, draft.problem, draft.unread) == ("preference", None, ())
    assert " ".join(turn.text or "" for turn in draft.turns) == chosen
    assert " ".join(turn.text or "" for turn in draft.rejected) == rejected
    assert [draft.turns[-1].role, draft.rejected[-1].role] == ["assistant"] * 2


def test_a_list_that_repeats_what_is_chosen_is_read() -> None:
    """As some data sets have it beside prompt, chosen and rejected; one that says else is told."""
    row = {"chosen": [USER, *said("a")], "rejected": [USER, *said("b")], "prompt": "Hi"}
    same, other = {"messages": [USER, *said("a")]}, {"messages": [USER, *said("x")]}
    assert Format("preference").read(row | same).unread == ()
    assert Format("preference").read(row | other).unread == ("messages",)
    assert Format("preference").read(row | {"prompt": "Bye"}).unread == ("prompt",)


def test_a_prompt_in_messages_is_not_trained_on() -> None:
    """Beside a completion, training is on that alone, unless the user says otherwise."""
    record = {"prompt": [USER, *said("x"), USER], "completion": said("a")}
    assert [turn.masked for turn in Format("prompt").read(record).turns] == [0, 1, 0, 0]
    every = Format("prompt", train_on="all").read(record)
    assert not any(turn.masked for turn in every.turns)


SYSTEM, TOOL = {"role": "system", "content": "s"}, {"role": "tool", "content": "t"}


@pytest.mark.parametrize(
    ("first", "roles"),
    [
        ([SYSTEM], ["system", "user", "assistant"]),
        ([TOOL], ["user", "tool", "assistant"]),
        ([SYSTEM, USER], ["system", "user", "assistant"]),
    ],
)
def test_sides_that_begin_with_a_system_or_a_tool_keep_the_prompt(
    first: list[dict[str, str]], roles: list[str]
) -> None:
    """Unless they hold one of their own."""
    sides = {"chosen": [*first, *said("a")], "rejected": [*first, *said("b")]}
    draft = Format("preference").read({"prompt": "Hi", **sides})
    assert [turn.role for turn in draft.turns] == roles
    assert [turn.role for turn in draft.rejected] == roles
    assert draft.unread == ()


@pytest.mark.parametrize("train_on", ["marked", "all"])
def test_a_preference_is_trained_whatever_its_marks(train_on: Any) -> None:
    """Its trainers know none."""
    marked = [message | {"weight": 0} for message in (*said("x"), USER, *said("a"))]
    row = {"chosen": [USER, *marked], "rejected": [USER, *said("b")]}
    draft = Format("preference", train_on=train_on).read(row)
    assert not any(turn.masked for turn in (*draft.turns, *draft.rejected))


def test_a_labelled_answer_is_trained_whatever_its_marks() -> None:
    """What was said before it is not, where it is marked so."""
    marked = [message | {"weight": 0} for message in (*said("x"), USER, *said("a"))]
    draft = Format("messages").read({"messages": [USER, *marked], "label": False})
    assert draft.lowered
    assert [turn.masked for turn in draft.turns] == [0, 1, 0, 0]
    row = {"prompt": "q", "completion": marked[2:], "label": True}
    assert [turn.masked for turn in Format("prompt").read(row).turns] == [0, 0]


@pytest.mark.parametrize("name", ["answer", "response", "completion", "output"])
def test_messages_without_an_answer_take_it_from_its_field(name: str) -> None:
    """With the thoughts beside it; where they end with an answer, the field is told."""
    row = {"messages": [USER], name: "a", "reasoning": "r"}
    draft = Format("messages").read(row)
    assert [turn.text for turn in draft.turns] == ["Hi", "<think>\nr\n</think>\n\na"]
    assert draft.unread == ()
    assert Format("messages").read(row | {"messages": [USER, *said("b")]}).unread[0] == name
