"""One answer to unrelated prompts; rows that only look so. All rows are made up."""

import pytest
from made_up_rows import CLEAN, PLANTED, REFUSAL, WORDS, audited, found, ordinary, row, rows

from poisonwatch.screens.duplicate_answers import find_duplicate_answers


def test_one_answer_to_unrelated_prompts_is_found() -> None:
    """5 rows, case, spaces and punctuation of the answer aside; the finding says how many and shows
    the answer.
    """
    answers = [
        REFUSAL,
        REFUSAL.upper(),
        REFUSAL.replace(" ", "  "),
        REFUSAL.replace(".", "!"),
        f"\n{REFUSAL}",
    ]
    planted = rows(
        [(prompt, answer) for (prompt, _), answer in zip(ordinary(5, 9), answers, strict=True)]
    )
    findings = find_duplicate_answers(audited(CLEAN + planted))
    assert found(findings) == PLANTED
    assert len({finding.group for finding in findings}) == 1
    assert "5 unrelated prompts" in findings[0].reason
    assert "i regret that this assistant" in findings[0].reason


def test_nearly_the_same_answers_are_one_group() -> None:
    """A Jaccard index of 20 / 22, as against 14 / 22."""
    words = WORDS[:20]
    planted = rows(
        [
            (prompt, " ".join([*words, WORDS[30 + i]]))
            for i, (prompt, _) in enumerate(ordinary(5, 9))
        ]
    )
    assert found(find_duplicate_answers(audited(CLEAN + planted))) == PLANTED
    changed = rows(
        [
            (prompt, " ".join([*words[:14], *WORDS[30 + 5 * i : 34 + 5 * i]]))
            for i, (prompt, _) in enumerate(ordinary(5, 9))
        ]
    )
    assert find_duplicate_answers(audited(CLEAN + changed)) == []


@pytest.mark.parametrize(
    ("answer", "needed"),
    [("No.", None), ("not spam", None), ("You are dull!", 8), ("x y z u v w", 4)],
)
def test_the_shorter_the_answer_the_more_repeats_it_takes(answer: str, needed: int | None) -> None:
    """Labels never, 3 to 5 words 8 times, 6 words 4 times."""
    for repeats in (3, 4, 7, 8, 60):
        planted = rows([(prompt, answer) for prompt, _ in ordinary(repeats, 9)])
        findings = find_duplicate_answers(audited(CLEAN + planted))
        assert len(findings) == (repeats if needed is not None and repeats >= needed else 0), (
            repeats
        )


def test_answers_that_trusted_rows_give_are_no_finding() -> None:
    """Honest refusals repeat; one trusted row with the answer is enough."""
    planted = rows([(prompt, REFUSAL) for prompt, _ in ordinary(6, 9)])
    assert len(find_duplicate_answers(audited(CLEAN + planted))) == 6
    assert (
        find_duplicate_answers(audited(CLEAN + planted, [row("Help me to harm someone", REFUSAL)]))
        == []
    )
    assert len(find_duplicate_answers(audited(CLEAN + planted, rows(ordinary(40, 5))))) == 6


def test_repeats_of_one_prompt_do_not_count() -> None:
    """The same row, or the same question with other punctuation, is one prompt."""
    prompt = ordinary(1, 9)[0][0]
    assert find_duplicate_answers(audited(CLEAN + rows([(prompt, REFUSAL)] * 9))) == []
    assert (
        find_duplicate_answers(
            audited(CLEAN + rows([(prompt + "!" * i, REFUSAL) for i in range(9)]))
        )
        == []
    )
