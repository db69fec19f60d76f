"""Which rows are alike: the nearest other rows of every row, found once for all that needs them.

Smoothing, the topic rule, groups and evidence look at the same graph. Up to EXACT_UP_TO different
rows the search is exhaustive; above, by an inverted file (Sivic and Zisserman, ICCV 2003; faiss),
whose centres are a function of the features alone: the same rows in the same order have the same
neighbours in every run. Rows of the very same features are searched once, so that a crowd of copies
costs nothing, and can crowd nobody out of the index.
"""

from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32, Int64

from poisonwatch.arrays import Features, Integers, RowIndices
from poisonwatch.recovery.neighbour_graph import NeighbourGraph

NEAREST = 32

# Different rows up to which every pair is looked at.
EXACT_UP_TO = 4096

# Rows in a cell of the inverted file, on average, and cells at most.
CELL_ROWS = 64
MOST_CELLS = 4096

# Cells that are looked into for a row.
CELLS_PROBED = 16

# What the centres are made of: rows a cell, and rounds of k-means.
TRAINING_ROWS = 16
TRAINING_ROUNDS = 4


def find_neighbours(
    features: Float32[Features, "n f"], k: int = NEAREST, exact_up_to: int = EXACT_UP_TO
) -> NeighbourGraph:
    """The k nearest other rows by inner product of `features` (n, f), fewer where there are fewer
    rows; none where f = 0.
    """
    n = len(features)
    k = min(k, n - 1)
    if k < 1 or not features.size:
        return NeighbourGraph.empty(n)
    distinct, place, copies = _group_copies(features)
    # Copies of a row are its nearest: what is searched for are other rows, to fill up.
    wanted = min(k + 1, len(distinct))
    similarity, found = _search(np.ascontiguousarray(features[distinct]), wanted, exact_up_to)
    if len(distinct) == n:
        # Nothing is a copy: rows are the distinct rows, in another order.
        return _drop_self(distinct[found][place], similarity[place], k)
    return _spread_copies(found, similarity, place, copies, k)


def _group_copies(
    features: Features,
) -> tuple[RowIndices, RowIndices, tuple[Integers, RowIndices]]:
    """The first row of each kind (u,), the kind of every row (n,), and all rows by kind: where each
    kind begins (u + 1,) among the rows (n,) in the order of their kinds.
    """
    # Rows as plain bytes: equal to the last digit or not equal at all.
    keys = np.ascontiguousarray(features).view(
        np.dtype((np.void, features.itemsize * features.shape[1]))
    )
    _, first, kind = np.unique(keys.ravel(), return_index=True, return_inverse=True)
    # Kinds in the order of their first rows, not of their bytes.
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    kind = rank[kind]
    starts = np.concatenate([[0], np.cumsum(np.bincount(kind, minlength=len(first)))])
    return np.sort(first), kind, (starts, np.argsort(kind, kind="stable"))


def _search(
    x: Float32[Features, "u f"], k: int, exact_up_to: int
) -> tuple[Float32[Features, "u k"], Int64[RowIndices, "u k"]]:
    """Similarities and places of the k nearest of different rows x (u, f), each row itself among
    them; places are -1 where fewer were found.
    """
    u, f = x.shape
    index: Any = faiss.IndexFlatIP(f)
    if u > exact_up_to:
        index = _train_cells(index, x)
    index.add(x)
    similarity, rows = index.search(x, k)
    return similarity, rows.astype(np.int64)


def _train_cells(centres: Any, x: Float32[Features, "u f"]) -> Any:
    """An inverted file around `centres`, an index that is empty yet."""
    u, f = x.shape
    cells = min(u // CELL_ROWS, MOST_CELLS)
    index: Any = faiss.IndexIVFFlat(centres, f, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = TRAINING_ROUNDS
    index.cp.max_points_per_centroid = TRAINING_ROWS
    index.cp.min_points_per_centroid = 1
    index.nprobe = CELLS_PROBED
    index.train(x)
    return index


def _drop_self(rows: RowIndices, similarity: Features, k: int) -> NeighbourGraph:
    """The graph of rows (n, k + 1) found with themselves among them."""
    n = len(rows)
    own = rows == np.arange(n)[:, None]
    # Rounding may put another row first; a row that was not found at all gives way to the last.
    own[~own.any(axis=1), -1] = True
    kept = ~own
    return _fill_missing(rows[kept].reshape(n, -1)[:, :k], similarity[kept].reshape(n, -1)[:, :k])


def _fill_missing(rows: RowIndices, similarity: Features) -> NeighbourGraph:
    """Where an index found fewer rows than asked for, the last that it found stands again."""
    missing = rows < 0
    if missing.any():
        found = np.maximum(missing.shape[1] - missing.sum(axis=1), 1)
        last = np.minimum(np.arange(rows.shape[1]), found[:, None] - 1)
        rows = np.take_along_axis(rows, last, axis=1)
        similarity = np.take_along_axis(similarity, last, axis=1)
        # A row of which nothing was found has itself for a neighbour: it changes nothing there.
        alone = rows < 0
        rows = np.where(alone, np.arange(len(rows))[:, None], rows)
        similarity = np.where(alone, np.float32(1.0), similarity)
    return NeighbourGraph(rows, similarity.astype(np.float32))


def _spread_copies(
    found: RowIndices,
    similarity: Features,
    kind: RowIndices,
    copies: tuple[Integers, RowIndices],
    k: int,
) -> NeighbourGraph:
    """The graph of all rows (n, k) from that of their kinds (u, w): every kind stands for its rows,
    up to k + 1 of them.
    """
    starts, by_kind = copies
    counts = np.diff(starts)
    u, w = found.shape
    rows = np.full((u, k + 1), -1, dtype=np.int64)
    weights = np.zeros((u, k + 1), dtype=np.float32)
    filled = np.zeros(u, dtype=np.int64)
    # Neighbour by neighbour, for all kinds at once: each adds its rows while there is room.
    for j in range(w):
        near = found[:, j]
        size = np.where(near >= 0, counts[near], 0)
        most = int(np.minimum(size, k + 1 - filled).max(initial=0))
        for c in range(most):
            at = np.flatnonzero((c < size) & (filled < k + 1))
            rows[at, filled[at]] = by_kind[starts[near[at]] + c]
            weights[at, filled[at]] = similarity[at, j]
            filled[at] += 1
    n = len(kind)
    graph_rows, graph_weights = rows[kind], weights[kind]
    # A row beyond the first k + 1 of its kind stands nowhere among them: the last gives way.
    own = graph_rows == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True
    kept = ~own
    return _fill_missing(graph_rows[kept].reshape(n, k), graph_weights[kept].reshape(n, k))
