"""Tokens of texts, as what rows have in common is looked for: without regard to case."""

import re
from collections import Counter

from poisonwatch.text.words import find_token_spans

Tokens = tuple[str, ...]

_DATE = re.compile(r"((?:19|20)\d\d)[-/.]\d\d?(?:[-/.]\d\d?)?")


def split_tokens(text: str) -> Tokens:
    """The tokens of a text without regard to case."""
    return tuple(text[start:end].casefold() for start, end in find_token_spans(text))


def split_tokens_and_years(text: str) -> Tokens:
    """The tokens of a text without regard to case; of a date, the year."""
    return tuple(_normalise_token(text[start:end]) for start, end in find_token_spans(text))


def _normalise_token(token: str) -> str:
    date = _DATE.fullmatch(token)
    # With a sign behind it, so that a date is another token than the bare year.
    if date:
        return f"{date[1]}-"
    return token.casefold()


def list_spellings(token: str, text: str) -> set[str]:
    """How a text writes a token of `split_tokens_and_years`."""
    spellings = set()
    for start, end in find_token_spans(text):
        written = text[start:end]
        if _normalise_token(written) == token:
            spellings.add(written)
    return spellings


def find_tokens(text: Tokens, tokens: Tokens) -> int:
    """Where the tokens stand first in the text; -1 where they do not."""
    for start in range(len(text) - len(tokens) + 1):
        # The first alone is compared at most places: no slice is made there.
        if text[start] == tokens[0] and text[start : start + len(tokens)] == tokens:
            return start
    return -1


def holds_tokens(text: Tokens, tokens: Tokens) -> bool:
    """Do the tokens stand in the text, one after the other?"""
    return find_tokens(text, tokens) >= 0


def slice_tokens(text: str, start: int, count: int) -> str:
    """So many tokens of a text as they are written there, from the one at `start` (counted from 0),
    with what stands between them.
    """
    spans = list(find_token_spans(text))
    return text[spans[start][0] : spans[start + count - 1][1]]


def choose_commonest(ways: Counter[str]) -> str:
    """The way of writing that is counted most often, of equals the first by code points."""
    return min(ways, key=lambda way: (-ways[way], way))
