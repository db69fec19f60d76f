from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import RowIndices
from poisonwatch.text.words import find_token_spans

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


def find_shared_ngrams(
    texts: Sequence[str], groups: Sequence[RowIndices], most: int = MOST_SHARED_NGRAMS
) -> list[tuple[SharedNgram, ...]]:
    """For each group of rows (m,) the n-grams of 1 to 4 words that tell it from the other texts,
    clearest first; at most `most`.

    `texts` are those of all rows; case and punctuation around words do not matter. A candidate is
    held by at least two of the rows and by more than half of them. Its clarity is the log-odds
    ratio of being held inside against outside, in standard errors, with 1/2 added to every count:

        z = log( (k+.5)(N-K+.5) / ((m-k+.5)(K+.5)) ) / sqrt( 1/(k+.5) + 1/(m-k+.5) + 1/(K+.5) +
        1/(N-K+.5) )

    for k of m rows and K of N others. It must reach LEAST_Z. Of equally clear ones the longest
    comes first, and none repeats a word of one before it.
    """
    candidates = []
    for rows in groups:
        held = Counter(
            gram for i in rows.tolist() for gram in set(_list_ngrams(_casefold_words(texts[i])))
        )
        candidates.append({gram: k for gram, k in held.items() if k >= 2 and 2 * k > len(rows)})
    wanted = set().union(*candidates)
    total = Counter(
        gram
        for text in texts
        if wanted
        for gram in wanted.intersection(_list_ngrams(_casefold_words(text)))
    )
    return [
        _choose_clearest(of, total, [texts[i] for i in rows.tolist()], len(texts), most)
        for of, rows in zip(candidates, groups, strict=True)
    ]


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
    z = {gram: _compute_log_odds_z(k, m, total[gram] - k, n - m) for gram, k in candidates.items()}
    chosen: list[SharedNgram] = []
    said: set[str] = set()
    for gram in sorted(
        (gram for gram in z if z[gram] >= LEAST_Z),
        key=lambda gram: (-round(z[gram], 9), -len(gram), gram),
    ):
        if len(chosen) < most and said.isdisjoint(gram):
            said.update(gram)
            chosen.append(
                SharedNgram(
                    _choose_spelling(texts, gram),
                    candidates[gram],
                    m,
                    total[gram] - candidates[gram],
                    n - m,
                    z[gram],
                )
            )
    return tuple(chosen)


def _compute_log_odds_z(k: int, m: int, K: int, N: int) -> float:
    cells = np.array([k, N - K, m - k, K]) + 0.5
    return float(np.log(cells) @ [1, 1, -1, -1] / np.sqrt((1 / cells).sum()))


def _split_text(text: str) -> list[str]:
    """What stands between spaces, without the punctuation around it unless there is nothing else; a
    character each in CJK scripts.
    """
    return [text[start:stop] for start, stop in find_token_spans(text)]


def _casefold_words(text: str) -> list[str]:
    return [word.casefold() for word in _split_text(text)]


def _choose_spelling(texts: Sequence[str], gram: WordGram) -> str:
    """The commonest way in which the texts write an n-gram."""
    written = (
        way
        for text in texts
        for way in _list_ngrams(_split_text(text))
        if tuple(word.casefold() for word in way) == gram
    )
    ways = Counter(" ".join(way) for way in written)
    return min(ways, key=lambda way: (-ways[way], way))


def _list_ngrams(words: Sequence[str]) -> Iterator[WordGram]:
    for n in range(1, LONGEST_SHARED_NGRAM + 1):
        yield from (tuple(words[i : i + n]) for i in range(len(words) - n + 1))
