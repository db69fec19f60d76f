"""The tree of rows holds what scipy's linkage does, branch by branch."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from poisonwatch.discovery.tree import grow_tree


def draw_cosines(n: int = 40) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T).astype(np.float32)


def test_branches_are_ward_s() -> None:
    """Every cut of scipy's tree is made of branches of ours."""
    cosines = draw_cosines()
    tree = grow_tree(cosines)
    ours = {frozenset(tree.get_rows(branch).tolist()) for branch in range(len(tree.start))}
    joined = linkage(np.sqrt(squareform(2 - 2 * cosines, checks=False)), "ward")
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


def test_pairs_are_averaged_within_branches() -> None:
    cosines = draw_cosines()
    tree = grow_tree(cosines)
    found = tree.average_pairs(cosines)
    for branch in range(39):
        rows = tree.get_rows(branch)
        pairs = cosines[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
        assert found[branch] == pytest.approx(pairs.mean(), abs=1e-6)


def test_states_tell_rows_of_one_push_apart() -> None:
    """Rows that push alike, in two kinds of states: the last branches joined are the kinds."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(20, 64)) * 0.3 + draw.normal(size=64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    features = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    tree = grow_tree((rows @ rows.T).astype(np.float32), 3 * features)
    halves = [set(tree.get_rows(int(child) - 20).tolist()) for child in tree.children[-1]]
    assert {frozenset(half) for half in halves} == {frozenset(range(10)), frozenset(range(10, 20))}
