"""Which rows are alike, once it is known; how it is found, is in `neighbours`."""

from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import Features, RowIndices


@dataclass(frozen=True, slots=True)
class NeighbourGraph:
    """The k nearest other rows of each of n rows: `rows` (n, k), most alike first, and their
    `similarity` (n, k), <phi_i, phi_j>. k = 0 where nothing is known of similarity.
    """

    # Plain kinds, which a checkpoint can hold.
    rows: RowIndices
    similarity: Features

    @classmethod
    def empty(cls, n: int) -> "NeighbourGraph":
        """Of n rows of which nothing is known."""
        return cls(np.empty((n, 0), dtype=np.int64), np.empty((n, 0), dtype=np.float32))

    @property
    def k(self) -> int:
        return int(self.rows.shape[1])
