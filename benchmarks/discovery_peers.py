"""Peers of discovery: how else groups of rows are found without a sentinel.

    spectral      spectral signatures (Tran, Li and Madry, NeurIPS 2018): rows that stand out along a
                  leading direction of the states; both ends of the first five are groups
    activation    activation clustering (Chen et al., arXiv 1811.03728): k-means of the states'
                  independent components; the smallest clusters first
    hdbscan       density clusters (Campello, Moulavi and Sander, PAKDD 2013), the newest first

A peer ranks lists of new rows. It is told how many rows were planted where it asks for that.
"""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Groups = list[list[int]]

DIRECTIONS = 5
COMPONENTS = 10
CLUSTERS = 10
LEAST_CLUSTER = 5


def rank_spectral(features: Array, trusted: Bools, planted: int) -> Groups:
    """Of each of the first DIRECTIONS, both ends: half as many rows again as were planted, as the
    paper removes.
    """
    new = features[~trusted]
    vectors = np.linalg.svd(new - new.mean(axis=0), full_matrices=False)[2]
    count = round(1.5 * planted)
    groups = []
    for vector in vectors[:DIRECTIONS]:
        along = (new - new.mean(axis=0)) @ vector
        groups += [np.argsort(-along)[:count].tolist(), np.argsort(along)[:count].tolist()]
    return groups


def rank_activation(features: Array, trusted: Bools, planted: int) -> Groups:
    """Clusters of new rows, smallest first: two as in the paper, and then more."""
    del planted
    new = features[~trusted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reduced = FastICA(COMPONENTS, random_state=0, max_iter=300).fit_transform(new)
    groups: Groups = []
    for k in (2, CLUSTERS):
        label = KMeans(k, random_state=0, n_init=4).fit_predict(reduced)
        found = [np.flatnonzero(label == cluster).tolist() for cluster in range(k)]
        # Of two, the smaller is the suspicious one.
        groups += sorted(found, key=len)[: 1 if k == 2 else k]
    return groups


def rank_hdbscan(cosines: NDArray[np.float32], trusted: Bools) -> Groups:
    """Density clusters of all rows, those of the largest share of new rows first."""
    distances = np.maximum(1.0 - cosines.astype(np.float64), 0.0)
    np.fill_diagonal(distances, 0.0)
    model = HDBSCAN(min_cluster_size=LEAST_CLUSTER, metric="precomputed", copy=True)
    label = model.fit_predict(distances)
    clusters = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    clusters.sort(key=lambda rows: (-float((~trusted[rows]).mean()), -len(rows)))
    return [rows[~trusted[rows]].tolist() for rows in clusters]


# Methods that read features of the states, by name.
BY_FEATURES: dict[str, Callable[[Array, Bools, int], Groups]] = {
    "spectral signatures of states (told how many)": rank_spectral,
    "activation clustering": rank_activation,
}
