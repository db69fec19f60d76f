"""What tells a group of rows from all others, in their own words: n-grams that most of the group's
texts hold, and few other texts do.

They are found for people to read, beside the evidence of a cluster; no row is flagged for them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import RowIndices
from poisonwatch.text.words import split_tokens

WordGram = tuple[str, ...]

LONGEST_SHARED_NGRAM = 4  # words
MOST_SHARED_NGRAMS = 3
LEAST_Z = 3.0  # standard errors by which an n-gram's log-odds must differ


@dataclass(frozen=True, slots=True)
class SharedNgram:
    """Words that most rows of a cluster hold and few others do: in `inside` of `rows` rows, and in
    `outside` of `others` other rows.

    `text` is their commonest spelling (hostile text); `z` the log-odds ratio in standard errors.
    """

    text: str
    inside: int
    rows: int
    outside: int
    others: int
    z: float


class SharedNgramSearch:
    """Looks for the n-grams that tell groups of texts from all texts, which pass by one at a time,
    those of the groups among them.

    Only what most of a group's texts hold is counted: all n-grams of a batch do not fit in memory.
    """

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self._groups = groups
        self._candidates = list(map(_find_candidates, groups))
        self._texts = 0
        self._holding: Counter[WordGram] = Counter()
        # By their number of words, and up to the first number that no candidate has.
        self._wanted: list[set[WordGram]] = []
        for n in range(1, LONGEST_SHARED_NGRAM + 1):
            self._wanted.append(set())
            for candidates in self._candidates:
                self._wanted[-1].update(gram for gram in candidates if len(gram) == n)

    @property
    def has_candidates(self) -> bool:
        """Whether any group has an n-gram to count: where none has, no text need be."""
        return bool(self._wanted[0])

    def count(self, text: str) -> None:
        """Count a text, one of a group or any other."""
        self._texts += 1
        if not self.has_candidates:
            return
        words = _fold_tokens(text)
        for n, wanted in enumerate(self._wanted, start=1):
            # What a candidate begins with is held at least as often, and a candidate itself: a text
            # without those of n words has none of n + 1.
            found = wanted.intersection(zip(*(words[i:] for i in range(n)), strict=False))
            if not found:
                break
            self._holding.update(found)

    def choose(self, most: int = MOST_SHARED_NGRAMS) -> list[tuple[SharedNgram, ...]]:
        """For each group (m texts) the n-grams of 1 to 4 words that tell it from the other texts
        that were counted, clearest first; at most `most`.

        Case and punctuation around words do not matter. A candidate is held by at least two of the
        texts and by more than half of them. Its clarity is the log-odds ratio of being held inside
        against outside, in standard errors, with 1/2 added to every count:

            z = log( (k+.5)(N-K+.5) / ((m-k+.5)(K+.5)) )
                / sqrt( 1/(k+.5) + 1/(m-k+.5) + 1/(K+.5) + 1/(N-K+.5) )

        for k of m texts and K of N others. It must reach LEAST_Z. Of equally clear ones the longest
        comes first, and none repeats a word of one before it.
        """
        shared = []
        for held, own in zip(self._candidates, self._groups, strict=True):
            shared.append(_choose_clearest(held, self._holding, own, n=self._texts, most=most))
        return shared


def find_shared_ngrams(
    texts: Sequence[str], groups: Sequence[RowIndices], most: int = MOST_SHARED_NGRAMS
) -> list[tuple[SharedNgram, ...]]:
    """What `SharedNgramSearch` chooses for groups of rows (m,) among the `texts` of all rows."""
    search = SharedNgramSearch([[texts[i] for i in rows.tolist()] for rows in groups])
    for text in texts:
        search.count(text)
    return search.choose(most)


def _find_candidates(texts: Sequence[str]) -> dict[WordGram, int]:
    """The n-grams that at least two and more than half of the texts hold, and how many do."""
    held: Counter[WordGram] = Counter()
    for text in texts:
        held.update(_list_distinct_ngrams(text))
    return {gram: k for gram, k in held.items() if k >= 2 and 2 * k > len(texts)}


def _choose_clearest(
    candidates: dict[WordGram, int],
    total: Counter[WordGram],
    texts: Sequence[str],
    n: int,
    most: int,
) -> tuple[SharedNgram, ...]:
    """The clearest of one group's candidates, in `total` of all n texts; `texts` are the group's
    own.
    """
    m = len(texts)
    z = {}
    for gram, k in candidates.items():
        own_z = _compute_log_odds_z(k, m, total[gram] - k, n - m)
        if own_z >= LEAST_Z:
            z[gram] = own_z
    chosen: list[SharedNgram] = []
    said: set[str] = set()
    # Rounded, so that equally clear ones stay equal whatever the order of the sums.
    for gram in sorted(z, key=lambda gram: (-round(z[gram], 9), -len(gram), gram)):
        if len(chosen) == most:
            break
        if not said.isdisjoint(gram):
            continue
        said.update(gram)
        chosen.append(
            SharedNgram(
                text=_choose_spelling(texts, gram),
                inside=candidates[gram],
                rows=m,
                outside=total[gram] - candidates[gram],
                others=n - m,
                z=z[gram],
            )
        )
    return tuple(chosen)


def _compute_log_odds_z(k: int, m: int, K: int, N: int) -> float:
    cells = np.array([k, N - K, m - k, K]) + 0.5
    return float(np.log(cells) @ [1, 1, -1, -1] / np.sqrt((1 / cells).sum()))


def _casefold_words(words: Iterable[str]) -> WordGram:
    return tuple(word.casefold() for word in words)


def _choose_spelling(texts: Sequence[str], gram: WordGram) -> str:
    """The commonest way in which the texts write an n-gram; every time it stands there counts."""
    ways: Counter[str] = Counter()
    for text in texts:
        for way in _list_ngrams(split_tokens(text)):
            if _casefold_words(way) == gram:
                ways[" ".join(way)] += 1
    return min(ways, key=lambda way: (-ways[way], way))


def _fold_tokens(text: str) -> list[str]:
    """The tokens of a text without regard to case: of millions of texts, so all at once."""
    # No character becomes a space, punctuation or CJK by folding (a test looks at all).
    return list(split_tokens(text.casefold()))


def _list_distinct_ngrams(text: str) -> set[WordGram]:
    """The n-grams of a text, without regard to case, each once."""
    return set(_list_ngrams(_fold_tokens(text)))


def _list_ngrams(words: Sequence[str]) -> Iterator[WordGram]:
    for n in range(1, LONGEST_SHARED_NGRAM + 1):
        for i in range(len(words) - n + 1):
            yield tuple(words[i : i + n])
