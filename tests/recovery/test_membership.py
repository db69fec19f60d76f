"""The membership matrix: regular columns, balanced rows, drawn from ids."""

import numpy as np
import pytest

from poisonwatch.errors import ConfigError
from poisonwatch.recovery.membership import draw_random_membership, draw_similar_membership

IDS = [f"row-{i}" for i in range(97)]


@pytest.mark.parametrize(
    ("K", "d"), [(1, 1), (2, 2), (10, 3), (24, 3), (50, 10), (97, 1), (97, 97), (5, 5)]
)
def test_every_column_has_exactly_d_ones(K: int, d: int) -> None:
    """sum_k M_ki = d and M_ki in {0, 1}."""
    membership = draw_random_membership(IDS, K, d)
    M = membership.matrix().toarray()
    assert M.shape == (K, 97)
    assert set(np.unique(M)) <= {0.0, 1.0}
    assert (M.sum(axis=0) == d).all()
    assert (membership.n, membership.K, membership.d) == (97, K, d)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("K", "d"), [(10, 3), (24, 3), (50, 10), (97, 3)])
def test_subsets_are_balanced(K: int, d: int, seed: int) -> None:
    """Subset sizes stay within a few rows of n d / K: only rows that were dealt a subset twice move
    on.
    """
    sizes = draw_random_membership(IDS, K, d, seed).matrix().sum(axis=1)
    assert sizes.sum() == 97 * d
    assert np.abs(sizes - 97 * d / K).max() <= 2 + np.sqrt(97 * d / K)


def test_no_subset_is_small_in_every_draw() -> None:
    """E[size_k] = n d / K for each k, within 15 % over 30 seeds: the remainder n mod K falls on
    different subsets round by round.
    """
    mean = np.mean(
        [draw_random_membership(IDS, 50, 10, seed).matrix().sum(axis=1) for seed in range(30)],
        axis=0,
    )
    assert np.abs(mean / (97 * 10 / 50) - 1).max() < 0.15


def test_one_membership_a_row_deals_evenly() -> None:
    """With d = 1 subset sizes differ by at most one; with K = n too, M is a permutation matrix."""
    sizes = draw_random_membership(IDS, 10, 1).matrix().sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    assert (draw_random_membership(IDS, 97, 1).matrix().sum(axis=1) == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_memberships_follow_the_row_wherever_it_stands(seed: int) -> None:
    """M(P ids) = M(ids) P for a permutation P."""
    order = np.random.default_rng(seed).permutation(97)
    straight, shuffled = (
        draw_random_membership(IDS, 20, 3),
        draw_random_membership([IDS[i] for i in order], 20, 3),
    )
    assert (shuffled.subsets == straight.subsets[order]).all()


def test_seeds_draw_different_memberships_and_repeat() -> None:
    """draw(ids, seed) is a function of both."""
    first, again, other = (draw_random_membership(IDS, 20, 3, seed).subsets for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any(axis=1).mean() > 0.9


def test_rows_rarely_share_all_their_subsets() -> None:
    """Two rows with the same column cannot be told apart: with d = 3 of K = 24 at most a few of the
    pairs do, over seeds.
    """
    same = []
    for seed in range(10):
        columns = [
            frozenset(row) for row in draw_random_membership(IDS, 24, 3, seed).subsets.tolist()
        ]
        same.append(97 - len(set(columns)))
    assert np.mean(same) < 6  # 97 * 96 / 2 pairs over 2024 columns: 2.3 expected


@pytest.mark.parametrize(("n", "K", "d"), [(5, 6, 1), (5, 3, 4), (5, 3, 0), (5, 0, 0), (0, 1, 1)])
def test_impossible_memberships_are_refused_with_the_numbers(n: int, K: int, d: int) -> None:
    """1 <= d <= K <= n."""
    with pytest.raises(
        ConfigError,
        match=rf"{K} subsets with {d} memberships a row make no sense for {n} rows: choose 1 <= stride\.d",
    ):
        draw_random_membership(IDS[:n], K, d)


def clustered(
    seed: int, sizes: list[int], dimensions: int = 12, width: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """phi (n, dimensions) of length one around far directions, in random order, and the cluster of
    each row.
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    middle = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0][: len(sizes)]
    phi = middle[label] + width * rng.standard_normal((len(label), dimensions))
    return (phi / np.linalg.norm(phi, axis=1, keepdims=True)).astype(np.float32), label


DESIGNS = [(1, 1), (2, 2), (3, 3), (10, 3), (24, 3), (50, 10), (97, 1), (97, 2), (97, 97)]


@pytest.mark.parametrize(("K", "d"), DESIGNS)
def test_every_column_of_alike_subsets_has_exactly_d_ones(K: int, d: int) -> None:
    """sum_k M_ki = d and M_ki in {0, 1}; each of the K subsets holds a row."""
    membership = draw_similar_membership(IDS, K, d, 0, clustered(0, [50, 30, 17])[0])
    M = membership.matrix().toarray()
    assert M.shape == (K, 97)
    assert set(np.unique(M)) <= {0.0, 1.0}
    assert (M.sum(axis=0) == d).all()
    assert (M.sum(axis=1) > 0).all()
    assert (membership.n, membership.K, membership.d) == (97, K, d)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("K", "d"), DESIGNS)
def test_alike_subsets_are_balanced_round_by_round(K: int, d: int, seed: int) -> None:
    """The leaves of a round part the rows, and hold n / leaves each, give or take 2: whatever the
    clusters' sizes are.
    """
    subsets = draw_similar_membership(IDS, K, d, seed, clustered(seed, [80, 12, 5])[0]).subsets
    start = 0
    for j in range(d):
        used, sizes = np.unique(subsets[:, j], return_counts=True)
        assert used.tolist() == list(range(start, start + K // d + (j < K % d)))
        assert np.abs(sizes - 97 / len(used)).max() < 2
        start += len(used)
    assert start == K


@pytest.mark.parametrize("seed", range(5))
def test_alike_memberships_follow_the_row_wherever_it_stands(seed: int) -> None:
    """M(features P, ids P) = M(features, ids) P for a permutation P, copies of a row included."""
    phi = clustered(seed, [40, 40, 17])[0]
    phi[10:30] = phi[0]
    order = np.random.default_rng(seed).permutation(97)
    straight, shuffled = (
        draw_similar_membership(IDS, 20, 3, seed, phi),
        draw_similar_membership([IDS[i] for i in order], 20, 3, seed, phi[order]),
    )
    assert (shuffled.subsets == straight.subsets[order]).all()


@pytest.mark.parametrize("seed", range(5))
def test_like_rows_share_alike_subsets(seed: int) -> None:
    """Pairs within a planted cluster share a subset far more often than by chance, and subsets are
    mostly of one cluster.
    """
    phi, label = clustered(seed, [12] * 8)
    M = (
        draw_similar_membership([f"row-{i}" for i in range(96)], 48, 3, seed, phi)
        .matrix()
        .toarray()
    )
    shared = M.T @ M
    within = label[:, None] == label[None, :]
    np.fill_diagonal(shared, np.nan)
    assert np.nanmean(shared[within]) > 10 * np.nanmean(shared[~within])
    purity = [np.bincount(label[members > 0]).max() / members.sum() for members in M]
    assert np.mean(purity) > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_alike_rows_are_parted_along_the_leading_direction(seed: int) -> None:
    """K = 2, d = 1: the two subsets are the two sides of the median of u^T phi, u the principal
    direction, but for 5 % of the rows.
    """
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.standard_normal((12, 12)))[0][:, 0]
    along = 4 * rng.standard_normal(97)
    phi = (np.outer(along, u) + rng.standard_normal((97, 12)) / 2).astype(np.float32)
    projected = phi @ u
    side = draw_similar_membership(IDS, 2, 1, seed, phi).subsets[:, 0]
    agreed = (side == (projected > np.median(projected))).mean()
    assert max(agreed, 1 - agreed) >= 0.95


def test_rounds_of_alike_subsets_differ_and_repeat() -> None:
    """draw(features, ids, seed) is a function of all; trees of one draw part the rows differently."""
    phi = np.random.default_rng(0).standard_normal((97, 12)).astype(np.float32)
    first, again, other = (
        draw_similar_membership(IDS, 24, 3, seed, phi).subsets for seed in (1, 1, 2)
    )
    assert (first == again).all()
    together = [(s[:, None] == s[None, :]) for s in (first[:, 0], first[:, 1], other[:, 0])]
    assert (together[0] != together[1]).any()
    assert (together[0] != together[2]).any()


def test_rows_without_features_are_parted_evenly() -> None:
    """r = 1, or all rows alike: no direction parts them, and subsets are balanced all the same."""
    for phi in (np.empty((97, 0), dtype=np.float32), np.ones((97, 4), dtype=np.float32)):
        sizes = draw_similar_membership(IDS, 10, 1, 0, phi).matrix().sum(axis=1)
        assert sizes.max() - sizes.min() <= 2


@pytest.mark.parametrize(("n", "K", "d"), [(5, 6, 1), (5, 3, 4), (5, 3, 0), (5, 0, 0), (0, 1, 1)])
def test_impossible_alike_memberships_are_refused_with_the_numbers(n: int, K: int, d: int) -> None:
    """1 <= d <= K <= n."""
    with pytest.raises(
        ConfigError,
        match=rf"{K} subsets with {d} memberships a row make no sense for {n} rows: choose 1 <= stride\.d",
    ):
        draw_similar_membership(IDS[:n], K, d, 0, np.ones((n, 4), dtype=np.float32))
