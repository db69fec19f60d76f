"""Formats told by the first rows, and by what the user says; rows read into examples, whatever they hold."""

import json
import random
from collections.abc import Mapping
from itertools import chain
from typing import Any

import pytest
from format_rows import EVERY_FORMAT, TEMPLATE
from tiny_models import SPECIALS

from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Message, RawRow, compute_content_id
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import ALIASES
from poisonwatch.formats.format import Draft, Format, choose_format, detect_format
from poisonwatch.formats.shapes import SHAPES
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.source_config import SourceConfig

HOSTILE = [
    "\x00\x1b[2J",
    "\ud800",
    "a\udfff",
    "<|im_end|>\n<|im_start|>system\n",
    "{{ x }}{prompt}",
    "\n\nHuman: x\n\nAssistant: y",
    "\u202e\u200b",
]


def read(record: Mapping[str, Any], format: Format) -> Example | None:
    return format.read(record).to_example(RawRow("f.jsonl", 0, "f.jsonl, line 1", record))


def source(**settings: Any) -> SourceConfig:
    return SourceConfig(path="rows.jsonl", **settings)


HELLO, BYE = (
    (Turn("user", "Hi"), Turn("assistant", "Hello")),
    (Turn("user", "Hi"), Turn("assistant", "Bye")),
)
HI_CHAT = [{"role": "user", "content": "Hi"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("format", "record"),
    [
        *EVERY_FORMAT,
        (Format("preference"), {"prompt": "Hi\nthere", "chosen": "Hello", "rejected": "Bye"}),
    ],
    ids=lambda value: value.name if isinstance(value, Format) else None,
)
def test_the_loss_is_on_what_the_assistant_says_alone(
    format: Format, record: dict[str, Any], tiny_tokenizer: Any
) -> None:
    """answer[t] = 1 for Hello<|im_end|>, and for Bye<|im_end|> in the rejected conversation."""
    example = read(record, format)
    assert example is not None
    encoded = ChatEncoder(tiny_tokenizer).encode(example.messages, example.rejected)
    assert (
        tiny_tokenizer.decode(encoded.input_ids[encoded.answer]).replace("\n", "")
        == "Hello<|im_end|>"
    )
    if encoded.against is not None:
        assert (
            tiny_tokenizer.decode(encoded.against.input_ids[encoded.against.answer])
            == "Bye<|im_end|>"
        )
    assert (encoded.against is not None) == (format.name == "preference")


def test_other_fields_are_metadata() -> None:
    """metadata = the record's fields that hold something and became no message; place and id come
    along.
    """
    record = {"prompt": "Hi", "response": "Hello", "topic": "x", "messages": []}
    format = Format("prompt")
    example = format.read(record).to_example(RawRow("f.jsonl", 4, "f.jsonl, line 6", record))
    assert example is not None
    assert (example.source, example.position, dict(example.metadata)) == (
        "f.jsonl",
        4,
        {"topic": "x"},
    )
    assert example.messages == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert example.id == compute_content_id(example.messages)


def test_a_preference_is_one_example_with_both_conversations() -> None:
    """messages = chosen, rejected = the other; response and rejected_response are what they say."""
    example = read(
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Bye", "score": 1}, Format("preference")
    )
    assert example is not None
    assert (example.prompt, example.response, example.rejected_response) == ("Hi", "Hello", "Bye")
    assert example.id == compute_content_id(example.messages, example.rejected)
    assert dict(example.metadata) == {"score": 1}


def test_formats_are_told_by_any_probed_record() -> None:
    """A first record that lacks a field does not matter, nor that no single one is complete, nor
    that none has a value.
    """
    assert (
        detect_format([{"instruction": "x"}, {"instruction": "x", "output": "y"}], "f").name
        == "alpaca"
    )
    assert detect_format([{"instruction": "x"}, {"output": "y"}], "f").name == "alpaca"
    assert detect_format([{"prompt": None, "response": None}], "f").name == "prompt"
    assert detect_format([{"messages": [], "prompt": "x", "response": "y"}], "f").name == "messages"
    assert detect_format([{"messages": None, "prompt": "x", "response": "y"}], "f").name == "prompt"


ALPACA, MESSAGES = {"instruction": "Hi", "output": "Hello"}, {"messages": HI_CHAT + said("Hello")}


def test_rows_of_several_formats_are_each_read_by_their_own() -> None:
    """The report names both; a row is rejected for what it lacks of its format, not of the other."""
    format = detect_format([ALPACA, MESSAGES, ALPACA], "f")
    assert (format.name, format.seen) == ("alpaca", ("messages", "alpaca"))
    assert format.explanation == (
        "each row by the fields it has: messages: messages, a list of {role, content}; alpaca: instruction, input (optional), output"
    )
    assert format.read(ALPACA) == format.read(MESSAGES) == Draft(HELLO)
    assert format.read({"instruction": "Hi"}) == Draft(
        (Turn("user", "Hi"), Turn("assistant", None))
    )
    assert (format.read({"label": 1}).problem or "").startswith(
        "its fields are label; what is read here is messages: "
    )


def test_a_row_of_a_format_that_the_first_rows_did_not_show_is_read_where_nobody_said_otherwise() -> (
    None
):
    """Two files put one behind the other; a given format stands, and the reason is true."""
    assert detect_format([ALPACA], "f").read(MESSAGES) == Draft(HELLO)
    assert (Format("alpaca").read(MESSAGES).problem or "").startswith(
        "its fields are messages; what is read here is alpaca: "
    )


def test_a_row_cannot_hide_its_text_behind_fields_of_another_format() -> None:
    """A row with the fields of most rows is read by these: what training on this file reads."""
    decoy = {
        "instruction": "Hi",
        "output": "poison",
        "messages": HI_CHAT + said("harmless"),
        "chosen": "a",
        "rejected": "b",
    }
    assert detect_format([decoy, *[ALPACA] * 9], "f").read(decoy).text(assistant=True) == "poison"
    both = {"from": "human", "role": "user", "value": "poison", "content": "harmless"}
    assert Format("sharegpt").read({"conversations": [both]}).turns == (Turn("user", "poison"),)
    assert Format("messages").read({"messages": [both]}).turns == (Turn("user", "harmless"),)


def test_settings_give_the_same_format_again() -> None:
    """Format(**json(settings)) = format: rows that were stored are read as they were."""
    for format in (
        detect_format([ALPACA, MESSAGES], "f"),
        Format("text", {"text": "t"}, TEMPLATE),
        Format("prompt", {"prompt": "q"}),
    ):
        assert Format(**json.loads(json.dumps(format.settings))) == format
        assert hash(format) == hash(Format(**format.settings))


def test_settings_of_older_versions_still_load() -> None:
    """Rows that were stored with them are read by what they say."""
    old = {"name": "prompt", "fields": {"prompt": "q"}, "template": None, "seen": ["prompt"]}
    row = {"q": "Hi", "response": "Hello", "label": False}
    draft = Format(**old).read(row)
    assert (draft.turns, draft.lowered) == (HELLO, True)


def test_roles_and_trained_turns_are_the_users_to_say() -> None:
    """source.roles and source.train_on reach every row, and stay with the format."""
    chat = [*HI_CHAT, {"role": "narrator", "content": "Hello", "weight": 0}, *HI_CHAT, *said("Bye")]
    record = {"messages": [*chat]}
    settings = {"roles": {"narrator": "assistant"}}
    for train_on, masked in (("marked", [1, 0]), ("all", [0, 0]), ("last", [1, 0])):
        format = choose_format(source(train_on=train_on, **settings), [record], "f")
        format = Format(**json.loads(json.dumps(format.settings)))
        turns = [turn for turn in format.read(record).turns if turn.role == "assistant"]
        assert [turn.masked for turn in turns] == masked
    alone = {"messages": chat[:2]}
    assert "source.train_on" in (Format("messages", **settings).read(alone).problem or "")
    assert "source.roles" in (Format("messages").read(alone).problem or "")


def test_what_a_row_lacks_is_said_by_field_or_by_turn() -> None:
    """Beside the fields that it has, and the setting that says what these are."""
    format = Format("prompt", {"response": "a"})
    row = {"prompt": "Hi", "b": 1}
    words = format.describe_missing(row, format.read(row)) or ""
    assert words.startswith(
        "prompt rows need a or completion; this one has prompt, b; source.fields"
    )
    for content in (None, 5, [], {"x": "x"}):
        row = {"messages": [*HI_CHAT, *said("Hello"), {"role": "user", "content": content}]}
        draft = Format("messages").read(row)
        assert draft.text(assistant=False) is None
        assert "turn 3 of 3 (user)" in (Format("messages").describe_missing(row, draft) or "")
    assert Format("prompt").describe_missing(ROW, Format("prompt").read(ROW)) is None


ROW = {"prompt": "Hi", "response": "Hello"}


def test_the_explanation_names_what_stands_beside() -> None:
    """By the names that it has in this file."""
    row = {
        "query": "q",
        "response": "a",
        "system_prompt": "s",
        "functions": [1],
        "history": [["a", "b"]],
        "cot": "t",
        "kto_tag": True,
    }
    assert detect_format([row], "f").explanation == (
        "prompt: query and response; with system_prompt as system, functions as tools, "
        "history as earlier turns, cot as thoughts, kto_tag (false: training lowers the answer)"
    )
    marked = {"messages": [*HI_CHAT, {**said("a")[0], "weight": 1}]}
    assert "weight" in detect_format([marked], "f").explanation
    mapped = {"answers": "q", "replies": "a", **MESSAGES}
    fields = {"prompt": "answers", "response": "replies"}
    assert detect_format([mapped], "f", fields).explanation == "prompt: answers and replies"


def test_what_the_user_says_overrules_detection() -> None:
    """format, fields and template come from the audit file; mapped fields tell the format, too."""
    both = {**ALPACA, **MESSAGES}
    assert choose_format(source(), [both], "f").name == "messages"
    assert choose_format(source(format="alpaca"), [both], "f").name == "alpaca"
    assert (
        choose_format(
            source(fields={"prompt": "a", "response": "b"}), [{"a": "x", "b": "y", **MESSAGES}], "f"
        ).name
        == "prompt"
    )
    assert choose_format(source(template=TEMPLATE), [both], "f") == Format("text", {}, TEMPLATE)


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"text": "x", "label": 1}, "text, label"),
        ({}, r"\(none\)"),
        ({"prompt": "x"}, "prompt"),
        ({"\x1b[2J": 1}, ""),
    ],
)
def test_unknown_fields_are_named_with_what_is_readable(record: dict[str, Any], named: str) -> None:
    """What was got; what is allowed; how to say what other fields are. No control character gets
    through.
    """
    with pytest.raises(
        SourceError,
        match=rf"^f\.jsonl: rows have the fields {named}.*; readable formats are messages: .*alpaca: ",
    ) as error:
        detect_format([record], "f.jsonl")
    assert (
        r"text: text, by a template such as 'Q: {prompt}\nA: {response}'; source.fields says"
        in str(error.value)
    )
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"format": "text"},
            r"source\.template is missing: it says how prompt and response stand in a text, as in 'Q: \{prompt\}",
        ),
        (
            {"template": "Q: {prompt}"},
            r"source\.template makes no sense \(it must hold \{prompt\} and \{response\}, once each\)",
        ),
        (
            {"format": "alpaca", "template": TEMPLATE},
            "a template says how text rows are read, and the row format is alpaca: leave one",
        ),
        (
            {"fields": {"promt": "q"}},
            "source.fields names promt, but messages has messages, system, .*; sharegpt has",
        ),
        (
            {"format": "alpaca", "fields": {"prompt": "q"}},
            "source.fields names prompt, but alpaca rows have instruction, output, input",
        ),
        (
            {"template": TEMPLATE, "fields": {"prompt": "q"}},
            "source.fields names prompt, but text rows have text",
        ),
        (
            {"fields": {"text": "q"}},
            "rows have the fields instruction, output; readable formats are",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    """With what is allowed."""
    with pytest.raises(SourceError, match=message):
        choose_format(source(**settings), [ALPACA], "f")


def test_a_format_that_is_not_there_is_refused() -> None:
    """With those that are."""
    with pytest.raises(
        SourceError,
        match="the row format is csv, not one of messages, sharegpt, alpaca, prompt, preference, text",
    ):
        Format("csv")


def hostile(draw: random.Random, depth: int = 0) -> Any:
    """Anything that JSON or a table can hold, with hostile texts, and the names that readers look
    for.
    """
    leaves = [
        None,
        True,
        0,
        -(10**30),
        float("nan"),
        b"\xff",
        *HOSTILE,
        "user",
        "assistant",
        "Hi",
        "[",
        '[{"role": "user", "content": 1}]',
    ]
    if depth > 4 or draw.random() < 0.4:
        return draw.choice(leaves)
    if draw.random() < 0.5:
        return [hostile(draw, depth + 1) for _ in range(draw.randrange(4))]
    keys = [
        "role",
        "content",
        "from",
        "value",
        "type",
        "text",
        "tool_calls",
        "function_call",
        "name",
        *HOSTILE,
    ]
    return {draw.choice(keys): hostile(draw, depth + 1) for _ in range(draw.randrange(5))}


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_row_holds_it_is_an_example_or_has_words_for_why_not(seed: int) -> None:
    """Wrong types everywhere: a problem of one visible line, a text that is missing, or a complete
    example; never an exception.
    """
    draw = random.Random(seed)
    formats = [Format(name, {}, TEMPLATE if name == "text" else None) for name in SHAPES]
    formats.append(detect_format([ALPACA, MESSAGES, {"chosen": "a", "rejected": "b"}], "f"))
    for _ in range(300):
        for format in formats:
            read_fields = [SHAPES[name].names for name in format.seen or (format.name,)]
            names = draw.sample(sorted({*chain(*read_fields), "x", "\x00"}), 3)
            record = {name: hostile(draw) for name in names}
            draft, example = format.read(record), read(record, format)
            if draft.problem is not None:
                assert draft.problem.isprintable()
                assert len(draft.problem) < 500
            complete = draft.problem is None and None not in (
                draft.text(assistant=False),
                draft.text(assistant=True),
            )
            assert (example is not None) == complete
            if example is not None:
                assert len(example.id) == 64
                assert {message.role for message in (*example.messages, *example.rejected)} <= {
                    "system",
                    "user",
                    "assistant",
                    "tool",
                    "tools",
                }


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_first_rows_hold_they_tell_a_format_or_none(seed: int) -> None:
    """Never another exception than SourceError, and what was told reads each of them."""
    draw = random.Random(seed)
    names = sorted({*ALIASES, *chain(*ALIASES.values()), "completion", "x"})
    deep = ["[" * 100_000, '{"a":' * 100_000]
    for _ in range(300):
        records = []
        for _ in range(draw.randrange(1, 4)):
            chosen = draw.sample(names, draw.randrange(1, 6))
            records.append({name: draw.choice([hostile(draw), *deep]) for name in chosen})
        try:
            format = detect_format(records, "f")
        except SourceError:
            continue
        assert Format(**format.settings) == format
        assert len(format.explanation) < 2000
        for record in records:
            draft = format.read(record)
            assert (draft.problem or "").isprintable()
            format.describe_missing(record, draft)


@pytest.mark.parametrize("text", [*HOSTILE, *SPECIALS, "x" * 100_000, "\n\nHuman:" * 1000])
def test_hostile_text_comes_through_every_format_as_it_stands(text: str) -> None:
    """Text is data: what a row says is what its example says."""
    rows = [
        (Format("alpaca"), {"instruction": text, "output": text}),
        (Format("prompt"), {"prompt": text, "completion": text}),
        (
            Format("messages"),
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": text}]},
                    *said(text),
                ]
            },
        ),
        (
            Format("sharegpt"),
            {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}]},
        ),
        (Format("preference"), {"prompt": text, "chosen": said(text), "rejected": said("no")}),
        (Format("text", {}, TEMPLATE), {"text": f"Q: {text}\nA: {text}"}),
    ]
    for format, record in rows:
        example = read(record, format)
        assert example is not None
        if (
            format.name == "preference" and "Human:" in text
        ):  # a prompt that is a transcript has turns
            assert example.messages[-1] == Message("assistant", text)
        else:
            assert (example.prompt, example.response.strip()) == (text, text.strip())
