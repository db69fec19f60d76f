"""Texts of rows that cannot become control tokens, whatever they spell.

Inside a text that spells one, a breaker character stands after the token's first character: the
tokenizer reads plain text, and the breaker's own tokens are dropped afterwards
(`tokens.tokenise`). So the whole rendering is still tokenised at once, and the spaces and merges at
the borders of texts are those of training.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property


def compile_tokens(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern of tokens, the longest that fits first; where there are none, of nothing."""
    return re.compile(_write_tree(list(tokens)) or r"(?!)")


def _write_tree(tokens: Sequence[str]) -> str:
    """The tokens as a tree of letters: some models have thousands that begin alike, and a list of
    them would be tried one by one at every "<".
    """
    tails: dict[str, list[str]] = {}
    for token in tokens:
        if token:
            tails.setdefault(token[0], []).append(token[1:])
    branches = []
    for letter, rest in sorted(tails.items()):
        branches.append(re.escape(letter) + _write_tree(rest))
    if not branches:
        return ""
    written = f"(?:{'|'.join(branches)})"
    if "" in tokens:
        return f"{written}?"
    return written


class Guard:
    """What keeps texts from spelling the `special` tokens."""

    def __init__(
        self, special: Sequence[str], normalise: Callable[[str], str] = lambda text: text
    ) -> None:
        """`normalise` is what the tokenizer makes of a text before it reads it."""
        self._normalise = normalise
        # A token of one character has no inside: a line end that some model calls special, say.
        self._special = [token for token in special if len(token) > 1]

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        return compile_tokens(self._special)

    @cached_property
    def _begins(self) -> frozenset[str]:
        return frozenset(token[0] for token in self._special)

    def _may_begin(self, letter: str) -> bool:
        """Is a letter, or what the tokenizer reads it as, the first of a control token? Some read
        wide letters, or capital ones, as others.
        """
        return letter in self._begins or not self._begins.isdisjoint(self._normalise(letter))

    def keeps(self, letter: str) -> bool:
        """Is a letter still there when the tokenizer looks for tokens? One that is not breaks
        none.
        """
        return self._normalise(letter) == letter

    def is_spelled(self, text: str) -> bool:
        """Does a text spell a control token?"""
        return self._spelled.search(text) is not None

    def find_leading(self, text: str) -> int:
        """How many characters of a text are a control token that it begins with."""
        found = self._spelled.match(text)
        if found is None:
            return 0
        return found.end()

    def break_tokens(self, text: str, breaker: str) -> str:
        """The text with each control token that it spells broken."""
        # What is broken may spell a shorter one still.
        while self.is_spelled(text):
            text = self._spelled.sub(lambda m: f"{m[0][0]}{breaker}{m[0][1:]}", text)
        return text

    def fence(self, text: str, breaker: str) -> str:
        """The text such that nothing a template does to it can make a control token: none joins
        with what stands beside it, and no two parts of it with each other.
        """
        # Templates ask whether there is a text at all.
        if not text:
            return text
        broken = text
        for letter in filter(self._may_begin, set(text)):
            broken = broken.replace(letter, f"{letter}{breaker}")
        return f"{breaker}{broken}{breaker}"
