"""Smoothing by neighbours: what a row does together with the rows most like it.

The Gaussian process of `gaussian_process`, where every row is measured alone (M = I), with each
row's value predicted from itself and its nearest rows only, under a mean of their own (ordinary
kriging in a moving neighbourhood: Chiles and Delfiner, Geostatistics, 2012, sections 3.4 and 3.6):

    w^_i = s_i . y_N ,   s_i = V^-1 (k_i + lambda 1) ,   lambda = (1 - 1' V^-1 k_i) / (1' V^-1 1)
    V = kernel(N, N) + (OWN + noise) I ,   k_i = kernel(N, i) ,   N = i and its neighbours

The weights s_i depend on the features alone: one sparse matrix smooths every query, at a cost that
is linear in the number of rows.
"""

from typing import cast

import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.recovery.gaussian_process import KERNEL_WIDTH, NOISE_VARIANCE, OWN_VARIANCE
from poisonwatch.recovery.neighbour_graph import NeighbourGraph

# Rows whose weights are worked out at a time: the features of all their neighbours are held.
ROWS_AT_ONCE = 1024


def compute_smoother(
    features: Float32[Features, "n f"], graph: NeighbourGraph, signs: Float64[Array, " n"]
) -> csr_array:
    """The smoother (n, n), k + 1 weights a row that sum to one: w^ = smoother @ y for y (n, Q).

    Smooth is what rows do that are raised: where one of two rows is lowered (-1 among the `signs`),
    their weight has the other sign. Without neighbours the smoother is the identity.
    """
    n, k = graph.rows.shape
    weights = np.empty((n, k + 1), dtype=np.float32)
    columns = np.concatenate([np.arange(n)[:, None], graph.rows], axis=1)
    for start in range(0, n, ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        weights[some] = _compute_weights(features, columns[some])
    weights *= (signs[:, None] * signs[columns]).astype(np.float32)
    ends = np.arange(n + 1) * (k + 1)
    return csr_array((weights.ravel(), columns.ravel(), ends), shape=(n, n))


def _compute_weights(features: Features, members: RowIndices) -> Float32[Features, "m k1"]:
    """s_i (m, k + 1) of rows whose neighbourhoods are `members` (m, k + 1), themselves first."""
    m, size = members.shape
    if size == 1:
        return np.ones((m, 1), dtype=np.float32)
    phi = features[members]
    kernel = phi @ phi.swapaxes(1, 2)
    kernel -= np.float32(1.0)
    kernel /= np.float32(KERNEL_WIDTH)
    np.exp(kernel, out=kernel)
    right = np.stack([kernel[:, :, 0], np.ones((m, size), dtype=np.float32)], axis=2)
    own = np.float32(OWN_VARIANCE + NOISE_VARIANCE * (1.0 + OWN_VARIANCE))
    V = kernel
    V[:, np.arange(size), np.arange(size)] += own
    solved = np.linalg.solve(V, right)
    near, ones = solved[:, :, 0], solved[:, :, 1]
    lagrange = (1.0 - near.sum(axis=1)) / ones.sum(axis=1)
    return cast(Features, near + lagrange[:, None] * ones)
