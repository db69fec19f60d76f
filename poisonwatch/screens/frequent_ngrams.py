"""The n-grams that several texts hold, and not too many of them.

Letters: G n-grams; the membership matrix (G, number of texts) says which texts hold which.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from poisonwatch.arrays import Integers
from poisonwatch.screens.similarity import count_members
from poisonwatch.screens.tokens import Tokens

LONGEST_NGRAM = 3
COMMON_NGRAM = 0.1  # share of texts above which an n-gram is common
COMMON_TEXTS = 20  # texts that are never too many


@dataclass(frozen=True, slots=True)
class NgramLevel:
    """The candidates of one length: which texts hold them, `members` (G, n), and their `tokens`."""

    members: sparse.csr_array
    tokens: Sequence[Tokens]


def list_ngram_levels(texts: Iterable[Tokens], least: int) -> list[NgramLevel]:
    """For each length the n-grams that are in enough texts, and not in too many."""
    numbered = _NumberedTexts.read(texts)
    most = max(float(COMMON_TEXTS), COMMON_NGRAM * numbered.n)
    levels = []
    for length, members, first in _mine_frequent(numbered, least):
        kept = count_members(members) <= most
        tokens = []
        for start in first[kept].tolist():
            numbers = numbered.stream[start : start + length].tolist()
            tokens.append(tuple(numbered.names[number] for number in numbers))
        levels.append(NgramLevel(members[kept], tokens))
    return levels


@dataclass(frozen=True, slots=True)
class _NumberedTexts:
    """The tokens of n texts, one after the other, as numbers, `stream` (T,); `text` (T,) is the
    text that each stands in, and `names` has the tokens of the numbers, in order.
    """

    n: int
    stream: Integers
    text: Integers
    names: Sequence[str]

    @classmethod
    def read(cls, texts: Iterable[Tokens]) -> "_NumberedTexts":
        # Numbers, where tuples of texts would be a string a token.
        met: dict[str, int] = {}
        stream, lengths = array("q"), array("q")
        for tokens in texts:
            lengths.append(len(tokens))
            stream.extend(met.setdefault(token, len(met)) for token in tokens)
        names = sorted(met)
        rank = np.empty(len(names), dtype=np.int64)
        rank[[met[name] for name in names]] = np.arange(len(names))
        in_order = rank[np.frombuffer(stream, dtype=np.int64)]
        text = np.repeat(np.arange(len(lengths)), lengths)
        return cls(len(lengths), in_order, text, names)


def _mine_frequent(
    texts: _NumberedTexts, least: int
) -> Iterator[tuple[int, sparse.csr_array, Integers]]:
    """For n = 1, 2, 3 the n-grams in at least `least` texts: their membership (G, number of texts),
    and the token, counted through all texts, that each begins with first.

    Only frequent n-grams are prolonged (Agrawal and Srikant, VLDB 1994).
    """
    # The n-gram that begins at each token, by a number of its own; -1 where none is frequent.
    level = texts.stream
    for n in range(1, LONGEST_NGRAM + 1):
        if n > 1:
            level = _prolong(level, texts.text)
        at = np.flatnonzero(level >= 0)
        keys, first, inverse = np.unique(level[at], return_index=True, return_inverse=True)
        # An n-gram that stands in a text twice is in it once. Two numbers in one, which sorts far
        # faster than pairs do: their product stays far below 2^63.
        pairs = np.unique(inverse * max(texts.n, 1) + texts.text[at])
        gram, text = np.divmod(pairs, max(texts.n, 1))
        frequent = np.bincount(gram, minlength=len(keys)) >= least
        # Numbered anew without gaps: products of numbers must stay far below 2^63.
        number = np.where(frequent, np.cumsum(frequent) - 1, -1)
        level = np.full(len(level), -1)
        level[at] = number[inverse]
        kept = frequent[gram]
        entries = (np.ones(int(kept.sum())), (number[gram[kept]], text[kept]))
        shape = (int(frequent.sum()), texts.n)
        yield n, sparse.csr_array(entries, shape=shape), at[first[frequent]]


def _prolong(level: Integers, text: Integers) -> Integers:
    """N-grams one token longer, from two that follow each other in one text; -1 where one of the
    two is not frequent.
    """
    follows = (level[:-1] >= 0) & (level[1:] >= 0) & (text[:-1] == text[1:])
    both = level[:-1] * (level.max(initial=0) + 1) + level[1:]
    return np.append(np.where(follows, both, -1), -1)


def list_ngrams(tokens: Tokens) -> set[Tokens]:
    """All n-grams of 1 to 3 tokens, each once."""
    ngrams = set()
    for n in range(1, LONGEST_NGRAM + 1):
        for start in range(len(tokens) - n + 1):
            ngrams.add(tokens[start : start + n])
    return ngrams
