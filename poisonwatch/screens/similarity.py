"""What rows say, as words: how similar texts are, and which rows are one task.

Letters: n rows, G groups of rows, m rows of a group, v words. The similarity of a group is the mean
cosine of its m (m - 1) / 2 pairs of texts, as TF-IDF vectors of words.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import overload

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from poisonwatch.arrays import Array, Integers
from poisonwatch.examples import Example, iterate_ids
from poisonwatch.text.words import WORD, split_words

SHORT_ANSWER = 3  # words; below, an answer is a label
TASK_WORDS = 6  # prompts that share so many first or last words are one task
ENDS = 200  # characters in which these words are looked for
ENDS_KEPT = 16  # while common ones are looked for
PIECE = 200_000  # group members whose vectors are added up at a time


class DistinctExamples(Sequence[tuple[list[int], Example]]):
    """Each different example once, with its places, in the order of their ids: the outcome cannot
    depend on the order of the rows. Examples are looked up when they are asked for.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        first: dict[str, int] = {}
        # Of examples that come again: in an audit there are none.
        self._later: dict[int, list[int]] = defaultdict(list)
        for place, id in enumerate(iterate_ids(examples)):
            there = first.setdefault(id, place)
            if there != place:
                self._later[there].append(place)
        self._first = array("q", (first[id] for id in sorted(first)))

    def __len__(self) -> int:
        return len(self._first)

    @overload
    def __getitem__(self, i: int) -> tuple[list[int], Example]: ...
    @overload
    def __getitem__(self, i: slice) -> list[tuple[list[int], Example]]: ...
    def __getitem__(
        self, i: int | slice
    ) -> tuple[list[int], Example] | list[tuple[list[int], Example]]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        place = self._first[i]
        return [place, *self._later.get(place, ())], self._examples[place]

    def list_texts(self, say: Callable[[Example], str]) -> "Texts":
        """What each example says."""
        return Texts(self, say)


class Texts(Sequence[str]):
    """Texts of distinct examples, each made when it is asked for: those of a million rows are more
    than anybody looks at together.
    """

    def __init__(self, examples: DistinctExamples, say: Callable[[Example], str]) -> None:
        self._examples, self._say = examples, say

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        return self._say(self._examples[i][1])


def list_distinct_examples(examples: Sequence[Example]) -> DistinctExamples:
    """Each different example once, with its places, in the order of their ids."""
    return DistinctExamples(examples)


def join_user_text(example: Example) -> str:
    """What the user says, turns joined by blank lines; without a user, all but the answer."""
    return _join_turns(example, "user", "\n\n") or example.prompt


def _join_turns(example: Example, role: str, between: str) -> str:
    return between.join(message.content for message in example.messages if message.role == role)


# One task

End = tuple[str, tuple[str, ...]]


def _list_ends(example: Example) -> set[End]:
    """The first and last words of the user and the first of the system, as far as they are enough
    to tell a task.
    """
    asked = join_user_text(example)
    rules = _join_turns(example, "system", "\n")
    # Only the ends are split into words: a prompt may be a book.
    words = {
        "first": split_words(asked[:ENDS])[:TASK_WORDS],
        "last": split_words(asked[-ENDS:])[-TASK_WORDS:],
        "system": split_words(rules[:ENDS])[:TASK_WORDS],
    }
    ends = set()
    for where, some in words.items():
        if len(some) == TASK_WORDS:
            ends.add((where, tuple(some)))
    return ends


def find_common_ends(rows: Sequence[tuple[list[int], Example]]) -> set[End]:
    """The ends that at least half of the rows have."""
    # A million prompts have as many ends. What makes up a sixth of three ends a row is left over
    # where groups of ends that are all different cancel out (Misra and Gries, Sci. Comput.
    # Program. 2, 1982), and is counted then.
    left: Counter[End] = Counter()
    for _, example in rows:
        for end in _list_ends(example):
            if end in left or len(left) < ENDS_KEPT:
                left[end] += 1
            else:
                left = Counter({other: count - 1 for other, count in left.items() if count > 1})
    counts: Counter[End] = Counter()
    for _, example in rows:
        counts.update(_list_ends(example) & left.keys())
    return {end for end, count in counts.items() if 2 * count >= len(rows)}


def are_one_task(examples: Sequence[Example], common: set[End]) -> bool:
    """Do at least half of the examples share an end that is not common to the whole batch?"""
    counts: Counter[End] = Counter()
    for example in examples:
        counts.update(_list_ends(example) - common)
    return 2 * max(counts.values(), default=0) >= len(examples)


# Similarity of texts


def drop_label(text: str) -> str:
    """The text, or nothing where it has one or two words."""
    # An answer may be long: its first words are enough to see that it is no label.
    words = list(islice(WORD.finditer(text), SHORT_ANSWER))
    if len(words) < SHORT_ANSWER:
        return ""
    return text


def fit_tfidf(texts: Sequence[str]) -> tuple[sparse.csr_array, TfidfVectorizer | None]:
    """TF-IDF vectors (n, v) of length one, or zero where a text has no word, and their weights;
    None where no text has one.
    """
    # scikit-learn refuses an empty vocabulary.
    if not any(map(WORD.search, texts)):
        return sparse.csr_array((len(texts), 1)), None
    weights = TfidfVectorizer(analyzer=split_words, sublinear_tf=True)
    return sparse.csr_array(weights.fit_transform(texts)), weights


def apply_tfidf(weights: TfidfVectorizer | None, texts: Sequence[str]) -> sparse.csr_array | None:
    """Vectors (k, v) of other texts by the same weights; None where there are no weights, or no
    texts.
    """
    if weights is None or not texts:
        return None
    return sparse.csr_array(weights.transform(texts))


def compute_text_similarity(vectors: sparse.csr_array) -> float:
    """The similarity of one group: mean cosine of the pairs of its vectors (m, v)."""
    everyone = sparse.csr_array(np.ones((1, vectors.shape[0])))
    return float(compute_group_similarity(everyone, vectors)[0])


def compute_group_similarity(members: sparse.csr_array, vectors: sparse.csr_array) -> Array:
    """The similarity (G,) of each group of a membership matrix (G, n), from vectors (n, v): |sum|^2
    less the diagonal.
    """
    own = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    m = count_members(members)
    # Sums of many groups have many words: in pieces, each small beside the vectors themselves.
    ends = np.cumsum(m) // PIECE
    result = np.zeros(len(m))
    for piece in np.split(np.arange(len(m)), np.flatnonzero(np.diff(ends)) + 1):
        sums = members[piece] @ vectors
        result[piece] = np.asarray(sums.multiply(sums).sum(axis=1)).ravel() - members[piece] @ own
    # A group of one has no pair: 0 / 1.
    result /= np.maximum(m * (m - 1), 1)
    return result


def count_members(members: sparse.csr_array) -> Integers:
    """m (G,) of each group of a membership matrix (G, n)."""
    return np.diff(members.indptr).astype(np.int64)
