"""Fields under the names that a record has for them."""

from typing import Any

import pytest

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import ALIASES, FIELDS, Fields, Names
from poisonwatch.formats.format import detect_format
from poisonwatch.formats.shapes import SHAPES


@pytest.mark.parametrize(
    ("record", "name", "path"),
    [
        ({"question": "x", "query": "y"}, "prompt", "query"),
        ({"Question": "x"}, "prompt", "Question"),
        ({"prompt": "", "question": "x"}, "prompt", "question"),
        ({"prompt": "", "question": None}, "prompt", "prompt"),
        ({"prompt": float("nan")}, "prompt", None),
        ({"chat": "a text"}, "messages", None),
        ({"chat": [{"role": "user"}]}, "messages", "chat"),
        ({"chat": '[["a", "b"]]'}, "messages", "chat"),
        ({"dialog": ["a", "b"]}, "messages", "dialog"),
        ({"turns": ["a", "b"]}, "messages", None),
        ({"items": [{"price": 1}]}, "conversations", None),
        ({"items": [{"input": "a", "output": "b"}]}, "conversations", "items"),
        ({"items": [{"label": True, "text": "a"}]}, "conversations", "items"),
        ({"chat": [1]}, "messages", None),
        ({"chat": []}, "messages", None),
        ({"Context": "c"}, "prompt", "Context"),
        ({"chat": "USER: a"}, "messages", "chat"),
        ({"messages": "a text"}, "messages", "messages"),
        ({"chosen": True}, "chosen", None),
        ({}, "prompt", None),
    ],
)
def test_the_first_name_that_holds_something_counts(
    record: dict[str, Any], name: str, path: str | None
) -> None:
    """Else the first that is not missing; an alias of a list must hold one."""
    assert Fields(record).find(name) == path


def test_what_the_user_maps_counts_alone_and_what_is_met_goes_first() -> None:
    """Dots lead into mappings, unless a field is called so."""
    record = {"prompt": "a", "question": "b", "x": {"y": "c"}, "z.z": "d"}
    assert Fields(record, Names(met={"prompt": "question"}))["prompt"] == "b"
    assert Fields({"prompt": "a"}, Names(met={"prompt": "question"}))["prompt"] == "a"
    assert Fields(record, Names({"prompt": "x.y"}))["prompt"] == "c"
    assert Fields(record, Names({"prompt": "z.z"}))["prompt"] == "d"
    assert Fields(record, Names({"prompt": "nowhere"}))["prompt"] is None
    assert Fields(record, Names({"prompt": "question"})).find("prompt", own_name=True) == "question"
    assert Fields({"question": "b"}).find("prompt", own_name=True) is None


def test_what_was_not_asked_for_is_unread() -> None:
    """Unless it is nothing, or a field that formats know says what a turn does; of a mapping that is
    read in part, the rest.
    """
    record = {
        "prompt": "a",
        "question": "a",
        "id": "a",
        "empty": "",
        "nan": float("nan"),
        "score": 0,
        "data": {"question": "b", "id": 1, "none": None},
        "none": [],
    }
    fields = Fields(record, Names({"response": "data.question"}))
    assert (fields["prompt"], fields["response"]) == ("a", "b")
    assert fields.list_unread([Turn("user", "a")]) == ("id", "score", "data.id")


def test_names_of_hostile_records_are_not_kept() -> None:
    """Neither long ones nor too many."""
    names = Names()
    names.lay_out({"x" * 10_000: 1})
    names.lay_out({str(n): 1 for n in range(1000)})
    for n in range(2000):
        names.lay_out({f"x{n}": 1})
    assert sum(map(len, names._layouts)) <= 1000


def test_every_field_of_a_format_is_known() -> None:
    """Or its aliases would not be looked for."""
    assert {name for shape in SHAPES.values() for name in shape.names} <= FIELDS
    assert ALIASES.keys() <= FIELDS


@pytest.mark.parametrize(
    ("record", "unread"),
    [
        (
            {"input": {"messages": [{"role": "user", "content": "q"}]}, "input.messages": "x"},
            ("input\\.messages",),
        ),
        ({"input": '{"messages": [{"role": "user", "content": "q"}], "n": 1}'}, ("input.n",)),
        ({"input": '{"messages": [{"role": "user", "content": "q"}]}'}, ()),
    ],
)
def test_a_key_with_dots_is_no_part_of_another_field(
    record: dict[str, Any], unread: tuple[str, ...]
) -> None:
    """What is read in part may be JSON in a text, and of that, too, the rest is told."""
    answers = {
        "preferred_output": '[{"role": "assistant", "content": "a"}]',
        "non_preferred_output": '[{"role": "assistant", "content": "b"}]',
    }
    row = record | answers
    draft = detect_format([row], "a").read(row)
    assert draft.turns == (Turn("user", "q"), Turn("assistant", "a"))
    assert draft.unread == unread


def test_texts_under_data_are_a_dialogue_where_nothing_else_is() -> None:
    """UltraChat's; beside fields of another format they are its own matter."""
    assert Fields({"id": 1, "data": ["q", "a"]}).find("messages") == "data"
    assert Fields({"question": "q", "answer": "a", "data": ["x", "y"]}).find("messages") is None
    for value in (["q"], [1, 2], [{"role": "user"}], "q"):
        assert Fields({"data": value}).find("messages") is None


def test_a_completion_of_both_sides_is_a_conversation() -> None:
    """As axolotl's KTO has it, without a prompt beside it."""
    both = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert Fields({"completion": both}).find("messages") == "completion"
    assert Fields({"prompt": "q", "completion": both}).find("messages") is None
    assert Fields({"completion": both[1:] * 2}).find("messages") is None
    met, mapped = Names(met={"messages": "completion"}), Names({"messages": "completion"})
    row = {"prompt": "q", "completion": both}
    assert Fields(row, met).find("messages") is None
    assert Fields(row, mapped).find("messages") == "completion"


def test_what_tables_write_for_null_is_no_list() -> None:
    """The alias that holds one counts."""
    turns = [{"role": "user", "content": "q"}]
    for value in ("None", "nan", [None], False):
        assert Fields({"messages": value, "dialog": turns}).find("messages") == "dialog"
        assert Fields({"messages": value, "prompt": "q"}).find("messages") is None
