"""An order of rows that depends on ids and seed alone."""

import hashlib
from collections.abc import Sequence

import numpy as np

from poisonwatch.arrays import RowIndices


def draw_order(ids: Sequence[str], seed: int) -> RowIndices:
    """All rows in an order that depends on their ids and the seed alone."""
    keys = [hashlib.sha256(f"{seed}/sample/{i}".encode()).digest() for i in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)
