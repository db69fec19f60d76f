"""The membership matrix M in {0,1}^(K x n): which of the K subsets hold which of the n rows.

Every column has exactly d ones (a left-d-regular bipartite graph) and the rows of M are balanced.
Two designs:

- random, the paper's: an expander with high probability. Each subset mixes rows that have nothing
in common, and recovery has to part them.
- alike: like rows share subsets, by d random projection trees. What the rows of a subset do is then
nearly the same thing, so that little
  is left to part; where single rows matter, they are measured alone afterwards.

Memberships depend on a row's id and content, not on its place, so the order of the data changes
nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from poisonwatch.errors import ConfigError

POWER_ITERATIONS = 4


@dataclass(frozen=True, slots=True)
class Membership:
    """`subsets` (n, d): the d distinct subsets of each row, out of `K`."""

    subsets: NDArray[np.int64]
    K: int

    @property
    def n(self) -> int:
        return int(self.subsets.shape[0])

    @property
    def d(self) -> int:
        return int(self.subsets.shape[1])

    def matrix(self) -> csr_array:
        """M as a sparse (K, n) matrix of ones and zeros."""
        columns = np.repeat(np.arange(self.n), self.d)
        return csr_array(
            (np.ones(self.n * self.d), (self.subsets.ravel(), columns)), shape=(self.K, self.n)
        )


def draw_random_membership(ids: Sequence[str], K: int, d: int, seed: int = 0) -> Membership:
    """Draw d of K subsets for every row, from its id and the seed.

    Each of d rounds orders the rows by a keyed hash and deals them out to the subsets in turn; a
    row dealt the same subset twice takes the next free one. Raises ConfigError unless 1 <= d <= K
    <= n.
    """
    n = len(ids)
    _check_counts(n, K, d)
    subsets = np.full((n, d), -1, dtype=np.int64)
    for j in range(d):
        for place, i in enumerate(sorted(range(n), key=lambda i: _hash_key(seed, j, ids[i]))):
            subset = (
                (j * n + place) % K
                # go on where the last round stopped, or the last subsets would always be the small ones
            )
            while subset in subsets[i, :j]:
                subset = (subset + 1) % K
            subsets[i, j] = subset
    return Membership(subsets, K)


def draw_similar_membership(
    features: NDArray[np.float32], ids: Sequence[str], K: int, d: int, seed: int = 0
) -> Membership:
    """Draw subsets of like rows: d rounds, each a balanced random projection tree over `features`
    (n, f) with its share of the K leaves.

    A node splits its rows at a quantile of their projection on a random direction, turned towards
    the leading principal direction by a few power iterations (Dasgupta and Freund, STOC 2008;
    Halko, Martinsson and Tropp, SIAM Review 53, 2011). Raises ConfigError as `draw_membership`
    does.
    """
    n = len(ids)
    _check_counts(n, K, d)
    by_id = np.array(
        sorted(range(n), key=ids.__getitem__), dtype=np.int64
    )  # ties fall to the same row wherever it stands
    subsets = np.empty((n, d), dtype=np.int64)
    start = 0
    for j in range(d):
        leaves = K // d + (j < K % d)
        rng = np.random.default_rng(int.from_bytes(_hash_key(seed, j, "tree")))
        for leaf, rows in enumerate(_split_rows(features, by_id, leaves, rng)):
            subsets[rows, j] = start + leaf
        start += leaves
    return Membership(subsets, K)


def _split_rows(
    features: NDArray[np.float32], rows: NDArray[np.int64], leaves: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    if leaves == 1:
        yield rows
        return
    centred = features[rows] - features[rows].mean(axis=0)
    direction: Any = np.asarray(rng.standard_normal(features.shape[1]), dtype=np.float32)
    for _ in range(POWER_ITERATIONS):
        direction = centred.T @ (centred @ direction)
        direction /= max(float(np.linalg.norm(direction)), np.finfo(np.float32).tiny)
    order = rows[np.argsort(centred @ direction, kind="stable")]
    left = leaves // 2
    cut = round(len(rows) * left / leaves)
    yield from _split_rows(features, order[:cut], left, rng)
    yield from _split_rows(features, order[cut:], leaves - left, rng)


def _check_counts(n: int, K: int, d: int) -> None:
    if not 1 <= d <= K <= n:
        raise ConfigError(
            f"{K} subsets with {d} memberships a row make no sense for {n} rows: choose 1 <= stride.d <= stride.K <= {n}"
        )


def _hash_key(seed: int, round_: int, example_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{round_}/{example_id}".encode()).digest()
