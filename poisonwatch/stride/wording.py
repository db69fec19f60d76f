"""How far a row's answer is worded like what sentinels forbid: character n-grams by TF-IDF.

    wording   mean cosine to a panel's forbidden answers, less that to its reference answers

in robust standard deviations, at most LARGEST either way; with the other sign for a row whose
answer training lowers. n-grams are of 3 to 5 characters within words, so that no language needs
words of its own; what one text alone holds does not count.

n-grams are hashed, and rows read some at a time: nothing is held that grows with what they say.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from poisonwatch.arrays import Array
from poisonwatch.examples import Example
from poisonwatch.recovery.robust import standardise
from poisonwatch.stride.leaning import LARGEST
from poisonwatch.stride.panel_answers import PanelAnswers

# Rows whose n-grams are held at a time.
ROWS_AT_ONCE = 4096

# Places that n-grams are hashed to.
PLACES = 2**20

# Counts of n-grams (m, PLACES), some rows at a time; asked for twice.
CountRows = Callable[[], Iterable[sparse.csr_matrix]]

_vectoriser = HashingVectorizer(
    analyzer="char_wb", ngram_range=(3, 5), n_features=PLACES, alternate_sign=False, norm=None
)


def count_ngrams(texts: Iterable[str]) -> sparse.csr_matrix:
    """How often each n-gram is in each of m texts (m, PLACES)."""
    counts: sparse.csr_matrix = _vectoriser.transform(texts)
    return counts


def count_answers(rows: Sequence[Example]) -> CountRows:
    """The n-grams of the rows' answers; counted once where they are held at once anyway."""

    def count() -> Iterator[sparse.csr_matrix]:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            places = range(start, min(start + ROWS_AT_ONCE, len(rows)))
            yield count_ngrams(rows[place].response for place in places)

    if len(rows) > ROWS_AT_ONCE:
        return count
    held = list(count())
    return lambda: held


def compute_wording(
    count_rows: CountRows,
    signs: Float[Array, " n"],
    answers: PanelAnswers,
    panels: Sequence[str],
) -> Float[Array, "n P"]:
    """How far n rows are worded like the forbidden answers of each of the panels; 0 on a panel that
    forbids nothing.
    """
    n = len(signs)
    wording = np.zeros((n, len(panels)))
    if not n or not answers.texts:
        return wording
    of_answers = count_ngrams(answers.texts)
    weights = _weigh_ngrams([*count_rows(), of_answers])
    asked = _scale(of_answers, weights).T.tocsc()
    similarity = np.concatenate([(_scale(c, weights) @ asked).toarray() for c in count_rows()])
    for j, panel in enumerate(panels):
        forbidden = answers.find(panel, forbidden=True)
        reference = answers.find(panel, forbidden=False)
        if not forbidden:
            continue
        alike = similarity[:, forbidden].mean(axis=1)
        if reference:
            alike -= similarity[:, reference].mean(axis=1)
        wording[:, j] = np.clip(standardise(alike), -LARGEST, LARGEST) * signs
    return wording


def _weigh_ngrams(counts: Iterable[sparse.csr_matrix]) -> Float[Array, " places"]:
    """log((1 + N) / (1 + d)) + 1 for an n-gram that d of N texts hold; 0 where one does."""
    total, holding = 0, np.zeros(PLACES, dtype=np.int64)
    for some in counts:
        total += some.shape[0]
        holding += np.bincount(some.indices, minlength=PLACES)
    weights: Array = np.where(holding > 1, np.log((1 + total) / (1 + holding)) + 1, 0.0)
    return weights


def _scale(counts: sparse.csr_matrix, weights: Float[Array, " places"]) -> sparse.csr_matrix:
    """TF-IDF of length one, with 1 + log of the counts; 0 for a text without n-grams."""
    values = (1 + np.log(counts.data)) * weights[counts.indices]
    scaled = sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
    lengths = sparse.linalg.norm(scaled, axis=1)
    scaled.data /= np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(scaled.indptr))
    return scaled
