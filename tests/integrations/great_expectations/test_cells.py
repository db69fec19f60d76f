"""What the cells of a row's line hold."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from row_tables import ALL, build_file_table, tabulate

from poisonwatch.examples import RawRow
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.format import Draft, Format
from poisonwatch.sources.open import SourceRows


def test_every_column_has_what_it_says(tmp_path: Path) -> None:
    """One row, all cells."""
    turns = [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Bye"),
        ("assistant", "Bye!"),
    ]
    found = build_file_table(
        tmp_path,
        [{"messages": [{"role": role, "content": text} for role, text in turns], "topic": "a"}],
    )
    assert found.readable.iloc[0].to_dict() == {
        "_row": 0,
        "prompt": "Be kind.\n\nHi\n\nBye",
        "response": "Hello\n\nBye!",
        "rejected": None,
        "source": "rows-7.jsonl",
        "series": "rows-#.jsonl",
        "position": 0,
        "label": "raised",
        "tools": None,
        "format": "messages",
        "role_sequence": "system user assistant user assistant",
        "turns": 5,
        "masked": 0,
        "characters": 22,
        "tokens": 2 + 1 + 2 + 1 + 1,
        "language": "Be",
        "copy_of": None,
        "lacks": None,
        "unread": "topic",
        "role_problem": None,
        "known": False,
        "prompt_control": None,
        "response_control": None,
        "rejected_control": None,
        "tools_control": None,
        "prompt_hidden": None,
        "response_hidden": None,
        "rejected_hidden": None,
        "tools_hidden": None,
    }
    assert found.examples[0] is not None


def test_a_preference_row_has_the_tokens_of_its_longer_conversation(tmp_path: Path) -> None:
    """And what is said in the rejected one."""
    cells = build_file_table(
        tmp_path, [{"prompt": "abcd", "chosen": "x", "rejected": "y" * 9}]
    ).readable.iloc[0]
    assert (cells["tokens"], cells["rejected"], cells["role_problem"]) == (4, "y" * 9, None)


@pytest.mark.parametrize(
    ("record", "source", "lacks"),
    [
        (
            {"prompt": "p", "id": 1},
            {"format": "prompt"},
            "prompt rows need response or completion; this one has prompt, id; source.fields says",
        ),
        (
            {"instruction": "p", "a": 1},
            {"format": "alpaca"},
            "alpaca rows need output; this one has instruction, a; source.fields says",
        ),
        (
            {"question": "p"},
            {"format": "prompt", "fields": {"prompt": "question", "response": "a"}},
            "prompt rows need a or completion; this one has question; source.fields says",
        ),
        (
            {"prompt": 7, "response": "x"},
            {"format": "prompt"},
            "turn 1 of 2 (user) has no text",
        ),
    ],
)
def test_incomplete_rows_tell_the_fields_that_they_lack(
    tmp_path: Path, record: Any, source: Any, lacks: str | None
) -> None:
    """By the names that the fields have in these rows, beside the fields that they have; a field of
    the wrong kind is there.
    """
    found = build_file_table(tmp_path, [record], **source)
    assert (found.detail(0, "lacks") or "").startswith(lacks or "")
    assert (found.detail(0, "lacks") is None) == (lacks is None)
    assert found.examples == [None]


def table_of(
    *drafts: Draft, record: dict[str, Any] | None = None, columns: frozenset[str] = ALL
) -> pd.DataFrame:
    """The cells of rows with this record that were read into these turns."""
    raw = []
    for i in range(len(drafts)):
        raw.append(RawRow("s", i, f"s, line {i + 1}", record or {}, raw=b"%d" % i))
    rows = SourceRows(raw, list(drafts), {"s": Format("messages")})
    return tabulate(rows, columns).readable


ASKED, ANSWERED = Turn("user", "Hi"), Turn("assistant", "Hello")


def test_what_training_does_with_a_row_has_columns() -> None:
    """Its label, how many turns are masked, tools, unread fields."""
    masked = ANSWERED._replace(masked=True)
    cells = table_of(
        Draft(
            (Turn("tools", '[{"name":"f"}]'), ASKED, masked, ASKED, ANSWERED), unread=("id", "a.b")
        ),
        Draft((ASKED, ANSWERED), lowered=True),
        Draft((ASKED, masked, masked)),
        Draft((ASKED, masked), rejected=(ASKED, ANSWERED)),
        Draft((ASKED,)),
    )
    assert cells["label"].tolist() == ["raised", "lowered", "raised", "raised", "raised"]
    assert cells["masked"].tolist() == [1, 0, 2, 1, 0]
    assert cells["tools"].tolist() == ['[{"name":"f"}]', None, None, None, None]
    assert cells["unread"].tolist() == ["id, a.b", None, None, None, None]
    # Nobody says the definitions of tools, and they are in no language.
    assert cells["prompt"][0] == "Hi\n\nHi"
    assert cells["language"][0] == "Hi\n\nHi\nHello\n\nHello"


def test_characters_that_should_not_be_there_are_named_by_turn_and_code_point() -> None:
    """In the column of the text that they are in; what both conversations share counts once."""
    asked, answered = Turn("user", "a\u200bb\u200bc"), Turn("assistant", "\x1b[2J")
    rejected = (asked, Turn("user", "\x85"), Turn("assistant", "\u202eb\x00"))
    cells = table_of(Draft((asked, answered), rejected=rejected)).iloc[0]
    assert cells["prompt_hidden"] == "U+200B x 2"
    assert cells["prompt_control"] == "U+0085 x 1"
    assert cells["response_control"] == "U+001B x 1"
    assert cells["response_hidden"] is None
    assert (cells["rejected_control"], cells["rejected_hidden"]) == ("U+0000 x 1", "U+202E x 1")


def test_each_turn_is_a_text_of_its_own() -> None:
    """A byte-order mark may begin any; letters of one do not excuse marks in another."""
    cells = table_of(
        Draft((ASKED, ANSWERED, Turn("user", "\ufeffusing System;"), ANSWERED)),
        Draft((Turn("user", "\u05e9\u05dc\u05d5\u05dd"), Turn("assistant", "plain\u200f text"))),
    )
    assert cells["prompt_hidden"].isna().all()
    assert cells["response_hidden"].tolist() == [None, "U+200F x 1"]


def test_broken_unicode_is_replaced_in_every_cell() -> None:
    """No cell holds half a surrogate pair, which pandas refuses."""
    record = {"x": ["\ud800"], "y": "\ud800"}
    draft = Draft((Turn("user", "a\ud800"), Turn("assistant", "\udfffb")), unread=("\ud800",))
    cells = table_of(draft, record=record, columns=(ALL - {"language"}) | {"record.x", "record.y"})
    cells = cells.iloc[0].to_dict()
    assert (cells["prompt"], cells["response"], cells["record.y"]) == (
        "a\ufffd",
        "\ufffdb",
        "\ufffd",
    )
    assert all(str(cell).encode() for cell in cells.values())


def test_fields_of_the_rows_keep_numbers_and_texts(tmp_path: Path) -> None:
    """Lists and mappings are JSON."""
    values = ["text", 3, 0.5, True, None, [1], {"k": "v"}]
    records = [{"prompt": "p", "response": str(i), "x": value} for i, value in enumerate(values)]
    found = build_file_table(tmp_path, records, frozenset({"record.x", "record.nowhere"})).readable
    assert found["record.x"].tolist() == ["text", 3, 0.5, True, None, "[1]", '{"k": "v"}']
    assert found["record.nowhere"].isna().all()
