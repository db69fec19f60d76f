"""The table that expectations speak about: a line a row, a cell a fact."""

import json
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.config import SourceConfig
from poisonwatch.integrations.great_expectations.frame import (
    EXPECTATION_COLUMNS,
    RowTable,
    build_table,
)
from poisonwatch.sources.open import read_source
from poisonwatch.validation import Facts

ALL = frozenset(EXPECTATION_COLUMNS)


def table(
    folder: Path, records: list[Any], columns: frozenset[str] = ALL, **source: Any
) -> RowTable:
    (folder / "rows-7.jsonl").write_text(
        "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)
    )
    config = SourceConfig(path=str(folder / "rows-7.jsonl"), **source)
    rows = read_source(config.with_base_folder(folder))
    return build_table(rows, Facts(), columns, lambda text: text[:2])


def test_every_column_has_what_it_says(tmp_path: Path) -> None:
    """One row, all cells."""
    turns = [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Bye"),
        ("assistant", "Bye!"),
    ]
    found = table(
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


def test_only_the_columns_that_are_asked_for_are_there(tmp_path: Path) -> None:
    """And the number that names the row."""
    assert set(
        table(
            tmp_path, [{"prompt": "p", "response": "r"}], frozenset({"turns", "record.x"})
        ).readable
    ) == {
        "_row",
        "turns",
        "record.x",
    }


def test_unreadable_rows_have_a_problem_and_no_line(tmp_path: Path) -> None:
    """Numbers name the row, not the line."""
    found = table(
        tmp_path, ["{broken", {"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r"}]
    )
    assert found.readable["_row"].tolist() == [1, 2]
    assert found.detail(0, "problem") == found.problems["problem"].iloc[0]
    assert found.detail(1, "problem") is None
    assert found.detail(2, "copy_of") == "rows-7.jsonl, line 2"
    assert [example is None for example in found.examples] == [True, False, False]


def test_a_preference_row_has_the_tokens_of_its_longer_conversation(tmp_path: Path) -> None:
    """And what is said in the rejected one."""
    cells = table(tmp_path, [{"prompt": "abcd", "chosen": "x", "rejected": "y" * 9}]).readable.iloc[
        0
    ]
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
    found = table(tmp_path, [record], **source)
    assert found.detail(0, "lacks") == lacks
    assert found.examples == [None]


def test_broken_unicode_is_replaced_in_every_cell(tmp_path: Path) -> None:
    """No cell holds half a surrogate pair, which pandas refuses."""
    record = {"prompt": "a\ud800", "response": "\udfffb", "x": ["\ud800"], "y": "\ud800"}
    cells = (
        table(tmp_path, [record], (ALL - {"language"}) | {"record.x", "record.y"})
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
    found = table(tmp_path, records, frozenset({"record.x", "record.nowhere"})).readable
    assert found["record.x"].tolist() == ["text", 3, 0.5, True, None, "[1]", '{"k": "v"}']
    assert found["record.nowhere"].isna().all()


def test_an_empty_file_of_rows_is_a_table_of_no_lines() -> None:
    """With the same columns."""
    from poisonwatch.sources.open import SourceRows

    found = build_table(SourceRows([], [], {}), Facts(), ALL, None)
    assert set(found.readable) == {"_row", *EXPECTATION_COLUMNS}
    assert (len(found.readable), len(found.problems), found.examples) == (0, 0, [])
