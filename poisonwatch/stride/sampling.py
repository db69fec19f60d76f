"""An order of rows that depends on ids and seed alone."""

import hashlib
import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from poisonwatch.arrays import RowIndices


def draw_order(ids: Sequence[str], seed: int) -> RowIndices:
    """All rows in an order that depends on their ids and the seed alone."""
    keys = [_compute_key(id, seed) for id in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)


def draw_first(ids: Iterable[str], seed: int, most: int) -> set[str]:
    """The first `most` of `draw_order`, of different ids as they pass by: no others are kept."""
    return set(heapq.nsmallest(most, ids, key=lambda id: _compute_key(id, seed)))


def _compute_key(id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/sample/{id}".encode()).digest()
