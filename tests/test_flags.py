"""A flagged row, in memory and as a line."""

import json
from dataclasses import replace

import pytest
from ledgers import flag as build_flag

from poisonwatch.detection.detection import locate_flags
from poisonwatch.examples import Example, Message
from poisonwatch.flags import (
    label_turn,
    make_flag_record,
    make_row_record,
    make_strength_key,
    read_flagged_example,
)
from poisonwatch.screens.finding import Finding

ROW = Example.from_messages(
    [Message("user", "Where? \ud800"), Message("assistant", "\x1b[31mThere")], "rows.jsonl", 7
)


@pytest.mark.parametrize(
    ("score", "severity", "expected"),
    [
        (5.0, "medium", "low"),
        (10.0, "medium", "medium"),
        (20.0, "medium", "high"),
        (5.0, "low", "low"),
        (20.0, "high", "high"),
    ],
)
def test_severity_follows_the_effect_not_p(score: float, severity: str, expected: str) -> None:
    """A weak push lowers the sentinel's severity by one step, a strong one raises it; p changes
    nothing.
    """
    flag = build_flag(ROW)
    for p in (1e-12, 0.04):
        assert (
            replace(
                flag, score=score, p_value=p, sentinel=replace(flag.sentinel, severity=severity)
            ).severity
            == expected
        )


@pytest.mark.parametrize(
    "rejected", [(), (Message("user", "Where?"), Message("assistant", "Nowhere"))]
)
def test_a_flag_s_line_gives_back_its_row(rejected: tuple[Message, ...]) -> None:
    """Text, place and id, whatever the text holds."""
    row = replace(ROW, rejected=rejected)
    assert read_flagged_example(json.loads(json.dumps(make_flag_record(build_flag(row))))) == row


def test_what_attribution_found_is_stronger_than_what_a_screen_did() -> None:
    """Whatever the scores; then the largest score first, whatever p and q, and equal ones by id."""
    flag = build_flag(ROW)
    unlikely = replace(flag, score=5.0, p_value=1e-12, q_value=1e-9)
    screened = replace(flag, score=50.0, by_attribution=False)
    assert flag.strength < unlikely.strength < screened.strength
    assert make_strength_key(True, 9.0, "0a") < make_strength_key(True, 9.0, "0b")


def test_a_line_names_who_flagged_the_row() -> None:
    """Attribution first, then screens, each once; a row that a screen alone found has no reason but
    the screen's.
    """
    found = (
        Finding(0, "urls", "a", "names a link."),
        Finding(0, "urls", "b", "names another."),
        Finding(0, "control-tokens", "c", "spells one."),
    )
    both, alone = (
        make_flag_record(replace(build_flag(ROW), findings=found, by_attribution=by))
        for by in (True, False)
    )
    assert both["by"] == ["stride", "control-tokens", "urls"]
    assert (alone["by"], alone["severity"]) == (["control-tokens", "urls"], "medium")
    assert (
        alone["reasons"]
        == both["reasons"][1:]
        == ["urls: names a link.", "urls: names another.", "control-tokens: spells one."]
    )


def test_a_line_gives_back_tools_masked_turns_and_lowered_rows() -> None:
    """As it was written; a line of an earlier version has none of these."""
    turns = [
        Message("tools", '[{"name":"look"}]'),
        Message("user", "Where?"),
        Message("assistant", "Hm.", masked=True),
        Message("assistant", "There."),
    ]
    row = Example.from_messages(turns, "rows.jsonl", 7, lowered=True)
    record = json.loads(json.dumps(make_flag_record(build_flag(row))))
    assert read_flagged_example(record) == row
    assert read_flagged_example(json.loads(json.dumps(make_row_record(row)))) == row
    plain = make_flag_record(build_flag(ROW))
    assert "lowered" not in plain
    assert all(set(turn) == {"role", "content"} for turn in plain["messages"])
    assert not read_flagged_example(plain).lowered


@pytest.mark.parametrize(
    ("role", "masked", "lowered", "expected"),
    [
        ("assistant", False, False, "assistant"),
        ("assistant", True, False, "assistant, not trained on"),
        ("assistant", True, True, "assistant, not trained on"),
        ("assistant", False, True, "assistant: training lowers this answer (label false)"),
        ("user", False, True, "user"),
        ("tools", False, True, "tools"),
    ],
)
def test_a_turn_s_label_says_what_training_makes_of_it(
    role: str, masked: bool, lowered: bool, expected: str
) -> None:
    """Nothing where it is raised, or no answer."""
    assert label_turn(Message(role, "x", masked=masked), lowered) == expected


def test_flags_are_found_again_where_their_rows_stand() -> None:
    """By id; rows of one content by source and position, too."""
    others = [Example.from_messages([Message("user", str(i))], "f", i) for i in range(9)]
    flags = [build_flag(others[i]) for i in (5, 0, 8)]
    assert locate_flags(flags, others).tolist() == [5, 0, 8]
    twice = [replace(ROW, source=source) for source in "abc"]
    rows = [*others[:2], *twice]
    assert locate_flags([build_flag(twice[2]), build_flag(twice[0])], rows).tolist() == [4, 2]
    assert locate_flags([], rows).tolist() == []
    with pytest.raises(LookupError):
        locate_flags([build_flag(ROW)], others)
