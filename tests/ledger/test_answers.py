"""Answers that a ledger can keep."""

import pytest

from poisonwatch.errors import InputError
from poisonwatch.ledger.answers import MAX_ANSWER_CHARACTERS, check_answer


@pytest.mark.parametrize("answer", ["No.", "\u4f60\n", "<b>\x1b", "x" * MAX_ANSWER_CHARACTERS])
def test_what_says_something_is_kept(answer: str) -> None:
    """Hostile or not: validation looks at it in its row."""
    check_answer(answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "empty"),
        (" \u200b\n", "empty"),
        ("At\0any", "NUL"),
        ("\ud800", "surrogate"),
        ("x" * (MAX_ANSWER_CHARACTERS + 1), "100,000 characters"),
    ],
)
def test_what_no_ledger_can_hold_is_refused(answer: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_answer(answer)
