"""What the cells of a row's line hold."""

from pathlib import Path
from typing import Any

import pytest
from row_tables import ALL, build_file_table


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
        [{"messages": [{"role": role, "content": text} for role, text in turns], "label": "a"}],
    )
    assert found.readable.iloc[0].to_dict() == {
        "_row": 0,
        "prompt": "Be kind.\n\nHi\n\nBye",
        "response": "Hello\n\nBye!",
        "rejected": None,
        "source": "rows-7.jsonl",
        "series": "rows-#.jsonl",
        "position": 0,
        "format": "messages",
        "role_sequence": "system user assistant user assistant",
        "turns": 5,
        "characters": 22,
        "tokens": 2 + 1 + 2 + 1 + 1,
        "language": "Be",
        "copy_of": None,
        "lacks": None,
        "role_problem": None,
        "known": False,
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
        ({"prompt": "p"}, {"format": "prompt"}, "prompt rows need response or completion"),
        ({"input": "p"}, {"format": "alpaca"}, "alpaca rows need instruction and output"),
        (
            {"question": "p"},
            {"format": "prompt", "fields": {"prompt": "question", "response": "a"}},
            "prompt rows need a or completion",
        ),
        ({"prompt": 7, "response": "x"}, {"format": "prompt"}, None),
    ],
)
def test_incomplete_rows_tell_the_fields_that_they_lack(
    tmp_path: Path, record: Any, source: Any, lacks: str | None
) -> None:
    """By the names that the fields have in these rows; a field of the wrong kind is there."""
    found = build_file_table(tmp_path, [record], **source)
    assert found.detail(0, "lacks") == lacks
    assert found.examples == [None]


def test_broken_unicode_is_replaced_in_every_cell(tmp_path: Path) -> None:
    """No cell holds half a surrogate pair, which pandas refuses."""
    record = {"prompt": "a\ud800", "response": "\udfffb", "x": ["\ud800"], "y": "\ud800"}
    cells = (
        build_file_table(tmp_path, [record], (ALL - {"language"}) | {"record.x", "record.y"})
        .readable.iloc[0]
        .to_dict()
    )
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
