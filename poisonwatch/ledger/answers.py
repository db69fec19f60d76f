"""Answers that people give rows: what a ledger can keep."""

import re

from poisonwatch.errors import InputError
from poisonwatch.text.characters import SAYS_SOMETHING

MAX_ANSWER_CHARACTERS = 100_000


def check_answer(answer: str) -> None:
    """Raises InputError where a text is no answer that a ledger can keep."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        raise InputError(f"an answer has at most {MAX_ANSWER_CHARACTERS:,} characters")
    if not re.search(SAYS_SOMETHING, answer):
        raise InputError("the answer is empty: poison leaves the row out")
    # Neither UTF-8 nor PostgreSQL hold them.
    if "\0" in answer or any("\ud800" <= c <= "\udfff" for c in answer):
        raise InputError("the answer holds NUL, or half of a surrogate pair: write it anew")
