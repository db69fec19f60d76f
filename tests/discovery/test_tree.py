"""The tree of rows holds what scipy's linkage does, branch by branch."""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from poisonwatch.discovery.tree import grow_tree


def draw_cosines(n: int = 40) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T).astype(np.float32)


def test_branches_are_average_linkage_s() -> None:
    """Every cut of scipy's tree is made of branches of ours."""
    cosines = draw_cosines()
    tree = grow_tree(cosines)
    ours = {frozenset(tree.get_rows(branch).tolist()) for branch in range(len(tree.start))}
    joined = linkage(squareform(1 - cosines, checks=False), "average")
    for k in range(1, 40):
        label = fcluster(joined, k, "maxclust")
        for number in set(label.tolist()):
            members = frozenset(np.flatnonzero(label == number).tolist())
            assert len(members) == 1 or members in ours


def test_counts_are_sums_over_a_branch_s_rows() -> None:
    values = np.random.default_rng(1).normal(size=(3, 40))
    tree = grow_tree(draw_cosines())
    counted = tree.count(values)
    for branch in range(39):
        expected = values[:, tree.get_rows(branch)].sum(axis=1)
        np.testing.assert_allclose(counted[:, branch], expected)
