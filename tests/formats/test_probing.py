"""What the first rows tell of a file, and what a later row cannot change."""

import json
from typing import Any

import pytest

from poisonwatch.formats.fields import Fields, Names
from poisonwatch.formats.format import detect_format
from poisonwatch.formats.probing import (
    MARK,
    count_formats,
    find_format,
    find_json_fields,
    find_names,
    list_candidates,
)

NAMES = Names()
QUESTION = {"question": "q", "answer": "a"}
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"prompt": "q", "response": "a", "chat": MESSAGES}, "prompt"),
        ({"chat": MESSAGES, **QUESTION}, "messages"),
        ({"messages": MESSAGES, "rejected_response": "b"}, "preference"),
        ({"messages": MESSAGES, "rejected_response": None}, "messages"),
        ({"messages": "", "prompt": "q", "response": "a"}, "prompt"),
        ({"prompt": "q", "response": "a", "chosen": "", "rejected": ""}, "prompt"),
        ({"prompt": "q", "chosen": True, "rejected": False}, None),
        ({"text": "x", "label": 1}, None),
    ],
)
def test_a_formats_own_names_go_before_others_aliases(
    record: dict[str, Any], name: str | None
) -> None:
    """Rejected answers under any name; empty cells of tables are no fields."""
    assert find_format(Fields(record), list_candidates({})) == name
    assert list(count_formats([record], list_candidates({}), NAMES)) == ([name] if name else [])


def test_names_are_those_of_most_rows() -> None:
    """A label, where most rows have a truth value; marks of messages."""
    marked = {
        "messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "loss": 0}]
    }
    found = find_names([marked, marked, {"messages": MESSAGES}], ["messages"], NAMES)
    assert found == {"messages": "messages", "role": "from", "content": "value", MARK: "loss"}
    rows = [{**QUESTION, "label": False}, QUESTION, QUESTION]
    assert find_names(rows, ["prompt"], NAMES) == {"prompt": "question", "response": "answer"}
    assert find_names(rows[:2], ["prompt"], NAMES)["label"] == "label"
    assert find_names([{"prompt": "q", "completion": "a", "answer": "x"}], ["prompt"], NAMES) == {
        "prompt": "prompt",
        "completion": "completion",
    }


def test_json_in_a_side_is_parsed_where_most_rows_have_it() -> None:
    """Tables hold messages so; elsewhere a text is what the trainer sees."""
    table = [{"prompt": "q", "chosen": json.dumps(MESSAGES), "rejected": json.dumps(MESSAGES[1])}]
    assert find_json_fields(table, NAMES) == ("chosen", "rejected")
    assert find_json_fields([*table, {"chosen": "a"}, {"chosen": '{"a": 1}'}], NAMES) == (
        "rejected",
    )


@pytest.mark.parametrize(
    ("decoy", "said"),
    [
        ({"prompt": "x", "response": "harmless"}, "poison"),
        ({"messages": MESSAGES}, "poison"),
        ({"chosen": "harmless", "rejected": "b"}, "poison"),
        ({"question": ""}, "poison"),
    ],
)
def test_no_later_row_hides_its_answer_behind_other_names(decoy: dict[str, Any], said: str) -> None:
    """It is read by the names that its file has, as the trainer reads it."""
    row = {"question": "q", "answer": "poison"} | decoy
    draft = detect_format([*[QUESTION] * 9, row], "f").read(row)
    assert draft.text(assistant=True) == said


def test_no_later_row_lowers_its_answer_or_hides_it_in_json() -> None:
    """Where the file has no labels, a label is unread; where it has texts, JSON is text."""
    format = detect_format([QUESTION] * 9, "f")
    labelled = format.read({**QUESTION, "label": False})
    assert (labelled.lowered, labelled.unread) == (False, ("label",))
    hidden = json.dumps([{"role": "user", "content": "poison"}, *MESSAGES])
    assert format.read({"question": "q", "answer": hidden}).text(assistant=True) == hidden


def test_no_later_message_hides_its_text_behind_other_keys() -> None:
    """Of role and content, too, the file's own names go first."""
    file = {"dialog": [{"speaker": "user", "text": "q"}, {"speaker": "bot", "text": "a"}]}
    row = {"dialog": [{"speaker": "user", "text": "q"}]}
    row["dialog"].append({"speaker": "bot", "text": "poison", "role": "user", "content": "x"})
    draft = detect_format([file] * 9, "f").read(row)
    assert draft.text(assistant=True) == "poison"
    assert draft.unread == ("dialog.role", "dialog.content")
