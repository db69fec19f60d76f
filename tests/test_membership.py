"""The membership matrix: regular columns, balanced rows, drawn from ids."""

import numpy as np
import pytest

from poisonwatch.errors import ConfigError
from poisonwatch.membership import draw_membership

IDS = [f"row-{i}" for i in range(97)]


@pytest.mark.parametrize(("K", "d"), [(1, 1), (2, 2), (10, 3), (24, 3), (50, 10), (97, 1), (97, 97), (5, 5)])
def test_every_column_has_exactly_d_ones(K: int, d: int) -> None:
    """sum_k M_ki = d and M_ki in {0, 1}."""
    membership = draw_membership(IDS, K, d)
    M = membership.matrix().toarray()
    assert M.shape == (K, 97)
    assert set(np.unique(M)) <= {0.0, 1.0}
    assert (M.sum(axis=0) == d).all()
    assert (membership.n, membership.K, membership.d) == (97, K, d)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("K", "d"), [(10, 3), (24, 3), (50, 10), (97, 3)])
def test_subsets_are_balanced(K: int, d: int, seed: int) -> None:
    """Subset sizes stay within a few rows of n d / K: only rows that were dealt a subset twice move on."""
    sizes = draw_membership(IDS, K, d, seed).matrix().sum(axis=1)
    assert sizes.sum() == 97 * d
    assert np.abs(sizes - 97 * d / K).max() <= 2 + np.sqrt(97 * d / K)


def test_no_subset_is_small_in_every_draw() -> None:
    """E[size_k] = n d / K for each k, within 15 % over 30 seeds: the remainder n mod K falls on different subsets round by round."""
    mean = np.mean([draw_membership(IDS, 50, 10, seed).matrix().sum(axis=1) for seed in range(30)], axis=0)
    assert np.abs(mean / (97 * 10 / 50) - 1).max() < 0.15


def test_one_membership_a_row_deals_evenly() -> None:
    """With d = 1 subset sizes differ by at most one; with K = n too, M is a permutation matrix."""
    sizes = draw_membership(IDS, 10, 1).matrix().sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    assert (draw_membership(IDS, 97, 1).matrix().sum(axis=1) == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_memberships_follow_the_row_wherever_it_stands(seed: int) -> None:
    """M(P ids) = M(ids) P for a permutation P."""
    order = np.random.default_rng(seed).permutation(97)
    straight, shuffled = draw_membership(IDS, 20, 3), draw_membership([IDS[i] for i in order], 20, 3)
    assert (shuffled.subsets == straight.subsets[order]).all()


def test_seeds_draw_different_memberships_and_repeat() -> None:
    """draw(ids, seed) is a function of both."""
    first, again, other = (draw_membership(IDS, 20, 3, seed).subsets for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any(axis=1).mean() > 0.9


def test_rows_rarely_share_all_their_subsets() -> None:
    """Two rows with the same column cannot be told apart: with d = 3 of K = 24 at most a few of the pairs do, over seeds."""
    same = []
    for seed in range(10):
        columns = [frozenset(row) for row in draw_membership(IDS, 24, 3, seed).subsets.tolist()]
        same.append(97 - len(set(columns)))
    assert np.mean(same) < 6  # 97 * 96 / 2 pairs over 2024 columns: 2.3 expected


@pytest.mark.parametrize(("n", "K", "d"), [(5, 6, 1), (5, 3, 4), (5, 3, 0), (5, 0, 0), (0, 1, 1)])
def test_impossible_memberships_are_refused_with_the_numbers(n: int, K: int, d: int) -> None:
    """1 <= d <= K <= n."""
    with pytest.raises(ConfigError, match=rf"{K} subsets with {d} memberships a row make no sense for {n} rows: choose 1 <= stride\.d"):
        draw_membership(IDS[:n], K, d)
