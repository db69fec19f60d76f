"""What rows say, as words: how similar texts are, and which rows are one task.

Letters: n rows, G groups of rows, m rows of a group, v words. The similarity of a group is the mean
cosine of its m (m - 1) / 2 pairs of texts, as TF-IDF vectors of words.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from poisonwatch.arrays import Array, Integers
from poisonwatch.examples import Example
from poisonwatch.text.words import WORD, split_words

SHORT_ANSWER = 3  # words; below, an answer is a label
TASK_WORDS = 6  # prompts that share so many first or last words are one task
ENDS = 200  # characters in which these words are looked for
PIECE = 200_000  # group members whose vectors are added up at a time


def list_distinct_examples(examples: Sequence[Example]) -> list[tuple[list[int], Example]]:
    """Each different example once, with its places, in the order of their ids: the outcome cannot
    depend on the order of the rows.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        places[example.id].append(row)
    return [(rows, examples[rows[0]]) for _, rows in sorted(places.items())]


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
    counts: Counter[End] = Counter()
    for _, example in rows:
        counts.update(_list_ends(example))
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
