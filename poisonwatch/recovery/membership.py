"""The membership matrix M in {0,1}^(K x n): which of the K subsets hold which of the n rows.

Every column has exactly d ones (a left-d-regular bipartite graph) and the rows of M are balanced.
Two designs:

- random, the paper's: an expander with high probability. Each subset mixes rows that have nothing
  in common, and recovery has to part them.
- alike: similar rows share subsets, by d random projection trees. What the rows of a subset do is
  then nearly the same thing, so that little is left to part; where single rows matter, they are
  measured alone afterwards.

Memberships depend on a row's id and content, not on its place, so the order of the data changes
nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32
from scipy.sparse import csr_array

from poisonwatch.arrays import Features, Integers, RowIndices
from poisonwatch.errors import ConfigError

POWER_ITERATIONS = 4


@dataclass(frozen=True, slots=True)
class Membership:
    """`subsets` (n, d): the d distinct subsets of each row, out of `K`."""

    subsets: Integers
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
        ones = np.ones(self.n * self.d)
        return csr_array((ones, (self.subsets.ravel(), columns)), shape=(self.K, self.n))


class Design(Protocol):
    """One way to draw d of K subsets for every row, from the rows' ids, the seed, and what is known
    of them: `features` (n, f). Raises ConfigError unless 1 <= d <= K <= n.
    """

    def __call__(
        self, ids: Sequence[str], K: int, d: int, seed: int, features: Features
    ) -> Membership: ...


def draw_random_membership(
    ids: Sequence[str],
    K: int,
    d: int,
    seed: int = 0,
    features: Features | None = None,  # noqa: ARG001  (the design's signature)
) -> Membership:
    """Draw d of K subsets for every row, from its id and the seed, whatever its features.

    Each of d rounds orders the rows by a keyed hash and deals them out to the subsets in turn; a
    row dealt the same subset twice takes the next free one. Raises ConfigError unless 1 <= d <= K
    <= n.
    """
    n = len(ids)
    _check_counts(n, K, d)
    subsets = np.full((n, d), -1, dtype=np.int64)
    for j in range(d):
        shuffled = sorted(range(n), key=lambda i: _hash_key(seed, j, ids[i]))
        for place, i in enumerate(shuffled):
            # Go on where the last round stopped, or the last subsets would always be small.
            subset = (j * n + place) % K
            while subset in subsets[i, :j]:
                subset = (subset + 1) % K
            subsets[i, j] = subset
    return Membership(subsets, K)


def draw_similar_membership(
    ids: Sequence[str], K: int, d: int, seed: int, features: Float32[Features, "n f"]
) -> Membership:
    """Draw subsets of similar rows: d rounds, each a balanced random projection tree over
    `features` (n, f) with its share of the K leaves.

    A node splits its rows at a quantile of their projection on a random direction, turned towards
    the leading principal direction by a few power iterations (Dasgupta and Freund, STOC 2008;
    Halko, Martinsson and Tropp, SIAM Review 53, 2011). Raises ConfigError as
    `draw_random_membership` does.
    """
    n = len(ids)
    _check_counts(n, K, d)
    # Rows in the order of their ids: ties fall to the same row wherever it stands.
    by_id = np.array(sorted(range(n), key=ids.__getitem__), dtype=np.int64)
    subsets = np.empty((n, d), dtype=np.int64)
    start = 0
    for j in range(d):
        leaves = K // d + (j < K % d)
        generator = np.random.default_rng(int.from_bytes(_hash_key(seed, j, "tree")))
        for leaf, rows in enumerate(_split_rows(features, by_id, leaves, generator)):
            subsets[rows, j] = start + leaf
        start += leaves
    return Membership(subsets, K)


def _split_rows(
    features: Features, rows: RowIndices, leaves: int, generator: np.random.Generator
) -> Iterator[RowIndices]:
    """The rows of each leaf below a node that holds `rows`."""
    if leaves == 1:
        yield rows
        return
    centred = features[rows] - features[rows].mean(axis=0)
    direction: Any = np.asarray(generator.standard_normal(features.shape[1]), dtype=np.float32)
    for _ in range(POWER_ITERATIONS):
        direction = centred.T @ (centred @ direction)
        direction /= max(float(np.linalg.norm(direction)), np.finfo(np.float32).tiny)
    order = rows[np.argsort(centred @ direction, kind="stable")]
    left = leaves // 2
    # In proportion to the leaves on either side, or leaves would differ in size.
    cut = round(len(rows) * left / leaves)
    yield from _split_rows(features, order[:cut], left, generator)
    yield from _split_rows(features, order[cut:], leaves - left, generator)


def _check_counts(n: int, K: int, d: int) -> None:
    if not 1 <= d <= K <= n:
        raise ConfigError(
            f"{K} subsets with {d} memberships a row make no sense for {n} rows: "
            f"choose 1 <= stride.d <= stride.K <= {n}"
        )


def _hash_key(seed: int, round_: int, example_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{round_}/{example_id}".encode()).digest()
