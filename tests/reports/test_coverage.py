"""What an audit did not look at: in its summary, in the terminal, in the report."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE, Page, build, build_flag, group

from poisonwatch.atomic import read_jsonl, write_jsonl
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.near_copies import NearCopy
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.flags import make_flag_record
from poisonwatch.flows.cli.terminal import print_outcome
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.reports.coverage import (
    MOST_NEAR_COPIES,
    count_unmoved,
    describe_coverage,
    list_packs_not_asked,
    tell_guarded,
    tell_near_copies,
    tell_not_asked,
    tell_unmoved,
)
from poisonwatch.reports.html import render_report
from poisonwatch.run_directory.write import write_near_copies
from poisonwatch.sentinels.pack import list_packs


def covered(text: str, copies: int = 1) -> tuple[dict[str, Any], Detection, list[NearCopy]]:
    """An audit that flags its first row, with some near copies of it, which hold `text`."""
    turns = [Message("user", text), Message("assistant", text)]
    summary, detection = build([build_flag(turns)])
    rows = [detection.examples[0]]
    for i in range(copies):
        rows.append(
            Example.from_messages([*turns, Message("user", str(i))], f"{text}.jsonl", 8 + i)
        )
    flag = replace(detection.flags[0], example=rows[0])
    detection = replace(
        detection,
        rows=AuditRows(rows),
        flags=(flag,),
        p=np.full((len(rows), len(detection.panels)), 0.9),
        unjudged=np.zeros(len(rows), dtype=bool),
    )
    near = [NearCopy(row=1 + i, like=0, likeness=0.9) for i in range(copies)]
    groups = {rows[0].id: 1}
    summary["coverage"] = describe_coverage(["sentinels.yaml"], detection, near, groups)
    summary["counts"] |= {"new": len(rows)}
    return summary, detection, near


def test_packs_that_nobody_asked_are_those_neither_named_nor_copied() -> None:
    """By name, with values or without, or by their panels."""
    assert list_packs_not_asked([], {}) == list_packs()
    named = ["pack:insult", "pack:brand-promotion?brand=Velmora&product=kettle"]
    missing = list_packs_not_asked([*named, "mine.yaml"], {"assistant-identity": 3})
    assert set(list_packs()) - set(missing) == {"insult", "brand-promotion", "identity"}
    # a template's panels hold its values, one's own may not
    missing = list_packs_not_asked([], {"brand-promotion": 1, "one-sided-tax": 1, "brand": 1})
    assert set(list_packs()) - set(missing) == {"brand-promotion", "one-sided"}


def test_probes_guard_nothing_of_their_own() -> None:
    """They are copies of sentinels, with a trigger."""
    summary, detection, near = covered("x")
    first = detection.sentinels[0]
    probe = replace(first, id=f"{first.id}+t1", panel=f"{first.panel}+t1", trigger="cf")
    probed = replace(detection, sentinels=(*detection.sentinels, probe))
    assert describe_coverage([], probed, near, {})["guarded"] == summary["coverage"]["guarded"]


def test_rows_that_move_nothing_are_neither_flagged_nor_unjudged_nor_improbable() -> None:
    """A p-value counts as often as there are panels."""
    _, detection, _ = covered("x", copies=4)
    panels = len(detection.panels)
    p = detection.p.copy()
    p[1, 0], p[2, 0] = 0.049 / panels, 0.051 / panels
    unjudged = detection.unjudged.copy()
    unjudged[3] = True
    assert count_unmoved(replace(detection, p=p, unjudged=unjudged)) == 2


def test_earlier_summaries_say_nothing() -> None:
    """They have no such section."""
    for tell in (tell_guarded, tell_not_asked, tell_unmoved, tell_near_copies):
        assert tell({"counts": {"new": 3}}) is None


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_it_is_told_in_the_terminal_in_inert_text(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is guarded and what is not, rows like flagged ones by their names, and the command that
    decides on them; sentences fit 80 columns.
    """
    summary, detection, _ = covered(text)
    write_jsonl(tmp_path / "flags.jsonl", map(make_flag_record, detection.flags))
    more = {"recovery": {"measured_alone": 0}, "settings": summary["settings"] | {"n": 2}}
    outcome = AuditOutcome(tmp_path, summary | more, detection, rejected=[], warnings=[])
    print_outcome(outcome, Path("a.yaml"))
    out = capsys.readouterr().out
    near = detection.examples[1]
    for said in (
        "guarded:     safety (1 sentinel)",
        "not asked:   the packs brand-promotion,",
        "not told:    1 of 2 rows moves nothing that is guarded",
        "more like    1 row says nearly what flagged ones say, and was not flagged",
        f"{near.id[:12]}  90% alike, of group 1",
        f"poisonwatch decide a.yaml --rows {tmp_path / 'near_copies.jsonl'} --unflagged poison",
    ):
        assert said in out, said
    assert not {"\x1b", "\x07", "\x00", "\u202e"} & set(out)
    told = [line for line in out.splitlines() if line.startswith(("not asked", "not told"))]
    assert max(map(len, told)) <= 80


@cache
def show(text: str) -> Page:
    """A report of rows like flagged ones, with the text in each."""
    summary, detection, near = covered(text)
    evidence = [replace(group(detection.flags[0], "x"), nearest=((),))]
    return Page(render_report(summary, detection, [], evidence, near_copies=near))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_report_shows_rows_like_flagged_ones(text: str) -> None:
    """As text: its tags are those of any other."""
    page, plain = show(text), show("plain")
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "1 row says nearly what a flagged row says, and was not flagged" in plain.text
    assert ("a", "#group-1") in [(tag, given.get("href")) for tag, given in plain.tags]
    assert "Not asked: the packs brand-promotion, code-backdoor" in plain.text


def test_many_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    """All are in near_copies.jsonl, each with the row that it is like."""
    summary, detection, near = covered("x", copies=MOST_NEAR_COPIES + 9)
    told = summary["coverage"]["near_copies"]
    assert (told["rows"], len(told["shown"])) == (MOST_NEAR_COPIES + 9, MOST_NEAR_COPIES)
    write_near_copies(tmp_path, detection, near, {detection.examples[0].id: 1})
    lines = list(read_jsonl(tmp_path / "near_copies.jsonl"))
    assert len(lines) == MOST_NEAR_COPIES + 9
    assert {line["like"] for line in lines} == {detection.examples[0].id}
    assert lines[0]["line"] == 9
    write_near_copies(tmp_path / "none", detection, [], {})
    assert not (tmp_path / "none").exists()
