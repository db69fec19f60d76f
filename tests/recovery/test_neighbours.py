"""The nearest other rows of every row: exact on few rows, nearly so on many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.arrays import Features
from poisonwatch.recovery import neighbours
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.recovery.neighbours import NEAREST, find_neighbours


def draw_features(n: int, f: int = 12, seed: int = 0) -> Features:
    """phi (n, f) of length one, no two alike."""
    x = np.random.default_rng(seed).normal(size=(n, f)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw_clusters(groups: int, each: int, f: int = 24, seed: int = 0) -> Features:
    """Rows of made-up topics, `each` around every centre."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(groups, f)), each, axis=0)
    x = (centres + 0.7 * draw.normal(size=centres.shape)).astype(np.float32)
    features: Features = x / np.linalg.norm(x, axis=1, keepdims=True)
    return features[draw.permutation(len(features))]


def search_all_pairs(features: Features, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and similarities (n, k) of the nearest others, most alike first."""
    similarity = features.astype(np.float64) @ features.T.astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(similarity, rows, axis=1)


def compute_recall(graph: NeighbourGraph, features: Features) -> float:
    """The share of the true nearest rows that the graph holds."""
    expected, _ = search_all_pairs(features, graph.k)
    hits = [
        len(set(a) & set(b)) for a, b in zip(graph.rows.tolist(), expected.tolist(), strict=True)
    ]
    return float(np.mean(hits)) / graph.k


def assert_others(graph: NeighbourGraph, n: int, k: int) -> None:
    """k different rows each, none of them the row itself, most alike first."""
    assert graph.rows.shape == graph.similarity.shape == (n, k)
    assert (graph.rows >= 0).all()
    assert (graph.rows < n).all()
    assert (graph.rows != np.arange(n)[:, None]).all()
    assert all(len(set(row)) == k for row in graph.rows.tolist())
    assert (np.diff(graph.similarity, axis=1) <= 1e-6).all()


@settings(max_examples=40)
@given(n=st.integers(2, 60), k=st.integers(1, 40), seed=st.integers(0, 99))
def test_few_rows_are_searched_exactly(n: int, k: int, seed: int) -> None:
    """As all pairs say; k = n - 1 where there are no more rows."""
    features = draw_features(n, seed=seed)
    graph = find_neighbours(features, k)
    assert_others(graph, n, min(k, n - 1))
    rows, similarity = search_all_pairs(features, graph.k)
    np.testing.assert_allclose(graph.similarity, similarity, atol=1e-5)
    # Rows may change places where they are equally near, but for rounding.
    swapped = graph.rows != rows
    own = (features[:, None] * features[graph.rows]).sum(axis=2)
    np.testing.assert_allclose(own[swapped], similarity[swapped], atol=1e-5)


def test_by_default_there_are_32() -> None:
    """NEAREST, of a hundred rows."""
    assert find_neighbours(draw_features(100)).k == NEAREST == 32


@pytest.mark.parametrize("n", [0, 1])
def test_a_row_alone_has_no_neighbour(n: int) -> None:
    """n = 0 and n = 1: k = 0."""
    graph = find_neighbours(draw_features(2)[:n])
    assert graph.rows.shape == (n, 0)
    assert graph.k == 0


def test_where_nothing_is_known_no_row_is_near() -> None:
    """f = 0: k = 0."""
    assert find_neighbours(np.zeros((9, 0), dtype=np.float32)).rows.shape == (9, 0)


def test_the_inverted_file_finds_nearly_all() -> None:
    """6,000 rows of 100 topics, above `exact_up_to`: a recall of .95 at least, and none is its own
    neighbour.
    """
    features = draw_clusters(100, 60)
    graph = find_neighbours(features, 16, exact_up_to=500)
    assert_others(graph, 6000, 16)
    assert compute_recall(graph, features) >= 0.95
    own = np.einsum("nf,nkf->nk", features, features[graph.rows])
    np.testing.assert_allclose(graph.similarity, own, atol=1e-5)


def test_the_inverted_file_repeats() -> None:
    """The same rows in the same order have the same neighbours."""
    features = draw_clusters(20, 60)
    first, again = (find_neighbours(features, 16, exact_up_to=100) for _ in range(2))
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.similarity, again.similarity)


def test_copies_are_nearest_to_each_other() -> None:
    """Three rows four times each: a row's copies come first, then the rows of other kinds."""
    kinds = draw_features(6)
    features = kinds[np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 0, 1, 2])]
    graph = find_neighbours(features, 7)
    assert_others(graph, 15, 7)
    kind = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    for i in range(15):
        copies = int((kind == kind[i]).sum()) - 1
        assert (kind[graph.rows[i, :copies]] == kind[i]).all()
        assert (kind[graph.rows[i, copies:]] != kind[i]).all()
    _, similarity = search_all_pairs(features, 7)
    np.testing.assert_allclose(graph.similarity, similarity, atol=1e-5)


@settings(max_examples=40)
@given(
    kind=st.lists(st.integers(0, 4), min_size=2, max_size=40),
    k=st.integers(1, 12),
)
def test_copies_crowd_nobody_out(kind: list[int], k: int) -> None:
    """However many there are of each kind: as near as all pairs say, and always others."""
    features = draw_features(5)[np.array(kind)]
    graph = find_neighbours(features, k)
    assert_others(graph, len(kind), min(k, len(kind) - 1))
    _, similarity = search_all_pairs(features, graph.k)
    np.testing.assert_allclose(graph.similarity, similarity, atol=1e-5)


def test_a_crowd_of_copies_costs_no_search_and_hides_no_row() -> None:
    """5,000 copies of one row among 600 others, above `exact_up_to`: every row has others, and rows
    that are no copy find their own kind.
    """
    rest = draw_clusters(10, 60)
    features = np.concatenate(
        [rest[:300], np.tile(draw_features(1, 24, seed=9), (5000, 1)), rest[300:]]
    )
    graph = find_neighbours(features, 8, exact_up_to=100)
    assert_others(graph, 5600, 8)
    crowd = np.arange(300, 5300)
    assert np.isin(graph.rows[crowd], crowd).all()
    apart = np.setdiff1d(np.arange(5600), crowd)
    expected, _ = search_all_pairs(rest, 8)
    place = np.searchsorted(apart, graph.rows[apart])
    hits = [len(set(a) & set(b)) for a, b in zip(place.tolist(), expected.tolist(), strict=True)]
    assert np.mean(hits) >= 0.9 * 8


def test_rows_that_are_all_the_same_have_others() -> None:
    """Also rows of length 0, which do not differ from the mean."""
    for value in (0.0, 0.25):
        features = np.full((40, 16), value, dtype=np.float32)
        assert_others(find_neighbours(features, 5), 40, 5)


def test_neighbours_follow_the_rows_wherever_they_stand() -> None:
    """graph(P x) = P graph(x)."""
    features = draw_features(50)
    order = np.random.default_rng(1).permutation(50)
    place = np.argsort(order)
    here, there = find_neighbours(features, 6), find_neighbours(features[order], 6)
    np.testing.assert_array_equal(there.rows, place[here.rows[order]])


def test_where_an_index_finds_too_few_the_last_stands_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking into one cell of 20 rows for 40: what was found first, then the last of it, never the
    row itself; smoothing over it still keeps what all rows do alike.
    """
    monkeypatch.setattr(neighbours, "CELLS_PROBED", 1)
    features = draw_clusters(100, 20)
    graph = find_neighbours(features, 40, exact_up_to=100)
    assert graph.rows.shape == (2000, 40)
    assert (graph.rows >= 0).all()
    assert (np.diff(graph.similarity, axis=1) <= 1e-6).all()
    different = np.array([len(set(row)) for row in graph.rows.tolist()])
    assert (different < 40).any()
    alone = graph.rows[:, 0] == np.arange(2000)
    assert (graph.rows[~alone] != np.flatnonzero(~alone)[:, None]).all()
    assert (different[alone] == 1).all()
    smoother = compute_smoother(features, graph, np.ones(2000))
    np.testing.assert_allclose(smoother @ np.ones(2000), 1.0, atol=1e-4)
