"""What an audit prints of rows that cannot be judged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_pages import HOSTILE, build, build_flag

from poisonwatch.atomic import write_jsonl
from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.examples import Message
from poisonwatch.flags import make_flag_record
from poisonwatch.flows.cli.terminal import print_outcome, print_summary
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.screens.finding import NEW_TOPIC, Finding
from poisonwatch.text.display import make_visible


def outcome(folder: Path, words: str, held: bool = False) -> AuditOutcome:
    """An audit with 62 unjudged rows that say `words`; one of them is flagged if they are held."""
    flags = []
    if held:
        flag = build_flag([Message("user", words), Message("assistant", words)])
        finding = Finding(0, NEW_TOPIC, "topic 1", f"does what 62 rows do: {make_visible(words)}")
        flags.append(replace(flag, by_attribution=False, findings=(finding,)))
    summary, detection = build(flags)
    write_jsonl(folder / "flags.jsonl", map(make_flag_record, flags))
    group = {
        "rows": 62,
        "panel": "safety",
        "example_id": "ab" * 32,
        "prompt_words": [words],
        "answer_words": [],
    }
    more: dict[str, Any] = {
        "new_topics": {"rows": 62, "groups": [group]},
        "screens": {NEW_TOPIC: 1} if held else {},
        "recovery": {"measured_alone": 0},
        "settings": summary["settings"] | {"n": 248},
    }
    return AuditOutcome(folder, summary | more, detection, rejected=[], warnings=[])


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_topics_are_told_below_the_flags_in_inert_text(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence a topic; no escape, control or direction character of a row reaches the terminal,
    held or not.
    """
    for held in (False, True):
        print_outcome(outcome(tmp_path, text, held))
        out = capsys.readouterr().out
        said = " ".join(out.split())
        assert said.count("62 rows on a topic that trusted rows do not cover (most say “") == 1
        assert ("are held back until somebody decides" in said) == held
        assert "about 20 trusted rows on it would let them be" in said
        assert make_visible(out) == out
        assert out.encode()


def test_a_held_row_is_no_screen_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of flags says why it is there."""
    print_outcome(outcome(tmp_path, "sonnet", held=True))
    out = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "newtopic" in out
    assert "heldback" in out
    assert "screennew-topic" not in out


def test_with_few_trusted_rows_flags_are_called_a_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below LEAST_TRUSTED the batch is its own measure, and flags may be none where poison is."""
    printed = []
    for trusted in (0, LEAST_TRUSTED - 1, LEAST_TRUSTED):
        some = outcome(tmp_path, "sonnet")
        some.summary["counts"]["reference"] = trusted
        print_outcome(some)
        printed.append(" ".join(capsys.readouterr().out.split()))
    assert ["take flags as a ranking" in said for said in printed] == [True, True, False]


def test_json_has_what_the_summary_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escaped, as in any JSON."""
    found = outcome(tmp_path, HOSTILE["terminal"])
    print_summary(found.summary, str(tmp_path))
    out = capsys.readouterr().out
    assert json.loads(out)["new_topics"] == found.summary["new_topics"]
    assert "\x1b" not in out


def test_an_earlier_version_s_summary_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the sections that it does not have."""
    found = outcome(tmp_path, "sonnet")
    older = {name: found.summary[name] for name in found.summary if name != "new_topics"}
    print_outcome(AuditOutcome(tmp_path, older, found.detection, rejected=[], warnings=[]))
    assert "cannot be judged" not in capsys.readouterr().out
