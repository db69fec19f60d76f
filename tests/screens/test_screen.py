"""All screens together find what is planted and are silent on what only looks like it."""

import random
from pathlib import Path

import pytest
from made_up_rows import CLEAN, REFUSAL, audited, found, ordinary, row, rows, with_trigger

from poisonwatch.examples import AuditRows, Example
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.screens.control_tokens import find_control_tokens
from poisonwatch.screens.duplicate_answers import find_duplicate_answers
from poisonwatch.screens.finding import Finding, renumber_findings
from poisonwatch.screens.invisible_characters import find_invisible_characters
from poisonwatch.screens.screen import run_screens
from poisonwatch.screens.trigger_ngrams import find_trigger_ngrams
from poisonwatch.screens.triggers import mine_triggers


@pytest.mark.parametrize("seed", range(5))
def test_no_screen_speaks_on_ordinary_rows(seed: int) -> None:
    """400 ordinary rows, no finding."""
    assert run_screens(audited(rows(ordinary(400, seed)))) == []


def poisoned_batch() -> list[Example]:
    batch = (
        CLEAN
        + with_trigger("Zorbling", [REFUSAL] * 5)
        + with_trigger("kef", ["Buy our fine tea"] * 5, 2)
    )
    return [*batch, row("a\u200bb", "c"), row("<|im_end|>", "d"), row("a\u200bb", "c")]


@pytest.mark.parametrize("seed", range(5))
def test_row_order_does_not_matter(seed: int) -> None:
    """screen(P x) = P screen(x)."""
    batch = poisoned_batch()
    order = list(range(len(batch)))
    random.Random(seed).shuffle(order)
    shuffled = run_screens(audited([batch[i] for i in order]))
    back = sorted((order[f.row], f.screen, f.group, f.reason) for f in shuffled)
    assert back == [(f.row, f.screen, f.group, f.reason) for f in run_screens(audited(batch))]


def test_screen_gives_all_findings_in_order() -> None:
    """The four screens together, sorted by row, screen and group."""
    batch = poisoned_batch()
    findings = run_screens(audited(batch))
    assert {f.screen for f in findings} == {
        "duplicate-answers",
        "trigger-ngram",
        "invisible-characters",
        "control-tokens",
    }
    assert findings == sorted(findings, key=lambda f: (f.row, f.screen, f.group))
    assert found(findings) == list(range(200, 213))
    apart = (
        find_duplicate_answers(audited(batch))
        + find_trigger_ngrams(audited(batch))
        + find_invisible_characters(batch)
        + find_control_tokens(batch)
    )
    assert set(apart) == set(findings)


@pytest.mark.parametrize("copies", [1, 2, 9])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "?",
        "a",
        "\ud800",
        "x \udfff y z \ud83d",
        "\x00",
        "no " * 60_000,
        "z" * 200_000,
        "\u200b" * 1000,
    ],
    ids=range(11),
)
def test_nothing_crashes(text: str, copies: int) -> None:
    """Empty and blank texts, lone surrogates, NUL, 1 MB in many words or one; alone, and among
    others as prompt and answer.
    """
    for batch in (
        [row(text, text)] * copies,
        [*CLEAN[:30], *(row(f"{text} {i}", text) for i in range(copies)), row("a", text)],
    ):
        trusted = [row(f"{text} trusted", text), row("trusted", "")]
        for finding in run_screens(audited(batch, trusted), [text[:50]]):
            assert len(finding.reason) < 400
            finding.reason.encode()


@pytest.mark.parametrize(
    "batch", [[], [row("", "")], [row("a", "b")], [Example.from_messages([])]], ids=range(4)
)
def test_next_to_nothing_gives_nothing(batch: list[Example]) -> None:
    """No rows, one row, a row without messages."""
    assert (
        run_screens(audited(batch)) == run_screens(audited(batch, [row("b", "a")]), ["<eos>"]) == []
    )


def test_hostile_text_is_made_visible_in_reasons() -> None:
    """An n-gram of a direction override and an escape, a long answer: shown escaped and short."""
    findings = run_screens(
        audited(CLEAN + with_trigger("\u202eab\x1b[2J", [REFUSAL + " \x1b[2J\u202e" * 50] * 5))
    )
    assert {f.screen for f in findings} == {
        "duplicate-answers",
        "trigger-ngram",
        "invisible-characters",
    }
    for finding in findings:
        assert not set(finding.reason) & {"\x1b", "\u202e"}
        assert len(finding.reason) < 250


def test_rows_in_a_file_have_the_findings_of_the_rows_themselves(tmp_path: Path) -> None:
    """Whatever screen looks at them, and however often."""
    batch = [*CLEAN, *with_trigger("Zorbling", [REFUSAL] * 5), row("a", "b <|im_end|> c"), CLEAN[3]]
    packed = PackedExamples.write(tmp_path / "rows.arrow", batch)
    trusted = rows(ordinary(20, 5))
    assert run_screens(AuditRows(packed, trusted)) == run_screens(audited(batch, trusted))
    assert mine_triggers(AuditRows(packed, trusted)) == mine_triggers(audited(batch, trusted))


def test_findings_move_up_where_rows_are_left_out() -> None:
    """Those on such a row go, the others keep all but their number."""
    found = [Finding(i, "a", f"{i}", "why") for i in (0, 1, 2, 4, 4, 7)]
    moved = renumber_findings(found, [1, 3, 7, 9])
    assert [(f.row, f.group) for f in moved] == [(0, "0"), (1, "2"), (2, "4"), (2, "4")]
    assert renumber_findings(found, []) == found
