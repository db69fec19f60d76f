"""The n-grams that several texts hold, and not too many of them.

Letters: G n-grams; the membership matrix (G, number of texts) says which texts hold which.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

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


def list_ngram_levels(texts: Sequence[Tokens], least: int) -> list[NgramLevel]:
    """For each length the n-grams that are in enough texts, and not in too many."""
    most = max(float(COMMON_TEXTS), COMMON_NGRAM * len(texts))
    stream = list(chain.from_iterable(texts))
    levels = []
    for length, members, first in _mine_frequent(texts, least):
        kept = count_members(members) <= most
        starts = first[kept].tolist()
        tokens = [tuple(stream[start : start + length]) for start in starts]
        levels.append(NgramLevel(members[kept], tokens))
    return levels


def _mine_frequent(
    texts: Sequence[Tokens], least: int
) -> Iterator[tuple[int, sparse.csr_array, Integers]]:
    """For n = 1, 2, 3 the n-grams in at least `least` texts: their membership (G, len(texts)), and
    the token, counted through all texts, that each begins with first.

    Only frequent n-grams are prolonged (Agrawal and Srikant, VLDB 1994).
    """
    text = np.repeat(np.arange(len(texts)), list(map(len, texts)))
    # The n-gram that begins at each token, by a number of its own; -1 where none is frequent.
    level = _number_tokens(texts)
    for n in range(1, LONGEST_NGRAM + 1):
        if n > 1:
            level = _prolong(level, text)
        at = np.flatnonzero(level >= 0)
        keys, first, inverse = np.unique(level[at], return_index=True, return_inverse=True)
        # An n-gram that stands in a text twice is in it once.
        pairs = np.unique(np.stack([inverse, text[at]], axis=1), axis=0)
        frequent = np.bincount(pairs[:, 0], minlength=len(keys)) >= least
        # Numbered anew without gaps: products of numbers must stay far below 2^63.
        number = np.where(frequent, np.cumsum(frequent) - 1, -1)
        level = np.full(len(level), -1)
        level[at] = number[inverse]
        pairs = pairs[frequent[pairs[:, 0]]]
        entries = (np.ones(len(pairs)), (number[pairs[:, 0]], pairs[:, 1]))
        shape = (int(frequent.sum()), len(texts))
        yield n, sparse.csr_array(entries, shape=shape), at[first[frequent]]


def _number_tokens(texts: Sequence[Tokens]) -> Integers:
    """The tokens of all texts, one after the other, as numbers in the order of the vocabulary."""
    stream = list(chain.from_iterable(texts))
    numbers = {token: i for i, token in enumerate(sorted(set(stream)))}
    return np.array([numbers[token] for token in stream], dtype=np.int64)


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
