"""What an audit flagged, in a terminal of 80 columns."""

from dataclasses import replace
from typing import Any

import pytest
from report_pages import HOSTILE, build_flag

from poisonwatch.examples import Message
from poisonwatch.flags import make_flag_record
from poisonwatch.flows.cli.flag_blocks import GROUPS_SHOWN, ROWS_SHOWN, build_blocks
from poisonwatch.text.display import make_visible


def build_lines(n: int, words: str = "Buy from Velmora", source: str = "rows.jsonl") -> list[Any]:
    """`n` lines of flags.jsonl."""
    lines = []
    for i in range(n):
        flag = build_flag([Message("user", f"Question {i}"), Message("assistant", words)])
        example = replace(flag.example, id=f"{i:064x}", source=source, position=i)
        lines.append(make_flag_record(replace(flag, example=example)))
    return lines


def build_group(lines: list[Any], words: str = "Velmora") -> dict[str, Any]:
    """A line of evidence.jsonl, of all of these."""
    ngram = {"text": words, "inside": len(lines), "rows": len(lines), "outside": 0, "others": 9}
    return {
        "panel": "brand",
        "example_ids": [line["example_id"] for line in lines],
        "prompt_ngrams": [],
        "answer_ngrams": [ngram],
        "confirmation": {"grade": "strong"},
        "unconfirmed": None,
    }


def test_a_group_is_one_block_of_what_tells_why() -> None:
    """Shared words, second look, and each row by its line and its id as `decide` takes them."""
    lines = build_lines(3)
    shown = build_blocks(lines, [build_group(lines)], 80)
    assert shown[0].startswith("group 1  brand, ")
    assert shown[0].endswith(": 3 rows; second look: strong")
    assert shown[1].strip() == "answers share “Velmora” (3 of 3)"
    rows = [line for line in shown if line.startswith("  rows.jsonl:")]
    assert [row.split()[0] for row in rows] == ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"]
    assert [row.split()[1] for row in rows] == [line["example_id"][:12] for line in lines]
    assert "Question 0 / Buy from Velmora" in rows[0]
    assert max(map(len, shown)) <= 80


def test_a_group_says_which_of_its_rows_attribution_did_not_flag() -> None:
    """Whoever decides on the group decides on these, too."""
    lines = build_lines(4)
    group = [build_group(lines)]
    assert not any("of these rows" in line for line in build_blocks(lines, group, 80))
    for line, by in zip(lines[1:], ("new-topic", "control-tokens", "control-tokens"), strict=True):
        line["by"] = [by]
    shown = [line.strip() for line in build_blocks(lines, group, 80)]
    assert "of these rows 1 held back and 2 found by screens alone" in shown
    lines[0]["by"] = ["control-tokens"]
    assert not any("of these rows" in line for line in build_blocks(lines[:1], group, 80))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("width", [40, 80])
def test_hostile_text_is_inert_and_fits(text: str, width: int) -> None:
    lines = build_lines(2, words=text, source=f"{text[:200]}/rows.jsonl")
    shown = build_blocks(lines, [build_group(lines, text)], width)
    for line in shown:
        assert make_visible(line) == line
        # a place is whole, as `decide` takes it
        assert len(line) <= width or ":" in line


def test_many_rows_and_groups_are_counted() -> None:
    """And rows in no group have a block of their own."""
    lines = build_lines(ROWS_SHOWN + 2)
    shown = build_blocks(lines, [build_group(lines)], 80)
    assert "  and 2 more rows: see flags.jsonl" in shown
    alone = build_lines(GROUPS_SHOWN + 3)
    groups = [build_group([line]) for line in alone[:-1]]
    shown = build_blocks(alone, groups, 80)
    assert "and 2 more groups: see the report" in shown
    assert any(line.startswith("no group brand") or line.startswith("no group ") for line in shown)
