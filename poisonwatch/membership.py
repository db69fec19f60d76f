"""The membership matrix M in {0,1}^(K x n): which of the K subsets hold which of the n rows.

Every column has exactly d ones (a left-d-regular bipartite graph, an expander with high probability) and the rows of M are balanced.
Memberships depend on a row's id, not on its place, so the order of the data changes nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from poisonwatch.errors import ConfigError


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
        return csr_array((np.ones(self.n * self.d), (self.subsets.ravel(), columns)), shape=(self.K, self.n))


def draw_membership(ids: Sequence[str], K: int, d: int, seed: int = 0) -> Membership:
    """Draw d of K subsets for every row, from its id and the seed.

    Each of d rounds orders the rows by a keyed hash and deals them out to the subsets in turn; a row dealt the same subset twice takes
    the next free one. Raises ConfigError unless 1 <= d <= K <= n.
    """
    n = len(ids)
    if not 1 <= d <= K <= n:
        raise ConfigError(f"{K} subsets with {d} memberships a row make no sense for {n} rows: choose 1 <= stride.d <= stride.K <= {n}")
    subsets = np.full((n, d), -1, dtype=np.int64)
    for j in range(d):
        for place, i in enumerate(sorted(range(n), key=lambda i: _draw(seed, j, ids[i]))):
            subset = (j * n + place) % K  # go on where the last round stopped, or the last subsets would always be the small ones
            while subset in subsets[i, :j]:
                subset = (subset + 1) % K
            subsets[i, j] = subset
    return Membership(subsets, K)


def _draw(seed: int, round_: int, example_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{round_}/{example_id}".encode()).digest()
