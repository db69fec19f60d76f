"""Rows that do not exist: drawn evenly, and exchangeable with rows of zero influence."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from slow_tests import slow

from poisonwatch.datasets.synthetic import make_sparse_problem
from poisonwatch.recovery.decoys import add_decoy_columns, draw_balanced_columns
from poisonwatch.recovery.lasso import lasso
from poisonwatch.recovery.membership import draw_random_membership


@pytest.mark.parametrize(
    ("K", "count", "d"),
    [(10, 100, 3), (7, 50, 7), (5, 3, 1), (1000, 300, 10), (9, 0, 2), (8, 400, 4)],
)
def test_dealt_subsets_are_distinct_and_loads_even(K: int, count: int, d: int) -> None:
    """d distinct subsets a row; each hand of K // d rows meets a subset at most once, so loads
    differ little, by at most 1 where d | K.
    """
    subsets = draw_balanced_columns(K, count, d, np.random.default_rng(0))
    assert subsets.shape == (count, d)
    assert all(len(set(row)) == d for row in subsets.tolist())
    loads = np.bincount(subsets.ravel(), minlength=K)
    assert np.ptp(loads) <= (1 if K % d == 0 else 2 + 2 * np.sqrt(count * d / K))


def test_dealt_subsets_are_uniform() -> None:
    """All 6 pairs of 4 subsets come 1/6 of the time: 12,000 hands, within 5 standard errors."""
    pairs = np.sort(draw_balanced_columns(4, 12_000, 2, np.random.default_rng(0)), axis=1)
    counts = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16)
    seen = counts[counts > 0]
    assert len(seen) == 6
    assert np.abs(seen - 2000).max() <= 5 * np.sqrt(
        2 * 12_000 * (1 / 6) * (5 / 6)
    )  # two complementary pairs a deck


def test_decoys_follow_the_rows_they_are_modelled_on() -> None:
    """[M, M_decoy]: the first n columns are M, the others hold d ones each; another seed, other
    decoys.
    """
    M = draw_random_membership([str(i) for i in range(60)], 30, 3).matrix()
    both = add_decoy_columns(M, 40, 0)
    assert both.shape == (30, 100)
    np.testing.assert_array_equal(both.toarray()[:, :60], M.toarray())
    assert (both.toarray()[:, 60:].sum(axis=0) == 3).all()
    assert set(np.unique(both.toarray())) == {0.0, 1.0}
    assert (add_decoy_columns(M, 40, 0) != both).nnz == 0
    assert (add_decoy_columns(M, 40, 1) != both).nnz > 0


def test_decoys_do_not_repeat_rows_drawn_from_the_same_seed() -> None:
    """Decoys of seed 0 beside the rows of `make_sparse_problem(seed=0)`: fewer than 5 % of 600 equal the
    row of their place.
    """
    M, _, _ = make_sparse_problem(600, 120, 0, seed=0)
    both = add_decoy_columns(M, 600, 0).toarray()
    assert (both[:, :600] == both[:, 600:]).all(axis=0).mean() < 0.05


def test_decoys_of_unequal_columns_are_refused() -> None:
    """d is read off M."""
    with pytest.raises(ValueError, match="columns of M hold 1 to 2 ones"):
        add_decoy_columns(csr_array(np.array([[1.0, 1.0], [0.0, 1.0]])), 3, 0)


def recover_with_decoys(
    seed: int, s: int, fraction: float, one_draw: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients (600,) of rows and (600,) of decoys, and the truth (600,), in which s rows are
    positive.
    """
    M, y, truth = make_sparse_problem(600, 120, s, 5.0, seed, positive=True)
    if one_draw:
        M, noise, _ = make_sparse_problem(1200, 120, 0, seed=seed)
        y = M[:, :600] @ truth
        y = y + noise * np.sqrt((y @ y) / (noise @ noise) / 5.0)
    else:
        M = add_decoy_columns(M, 600, seed)
    w = lasso(M, y[:, None], fraction).w[:, 0]
    return w[:600], w[600:], truth


@pytest.mark.parametrize(
    ("one_draw", "favour"), [(True, 0.0), pytest.param(False, 0.005, marks=slow)]
)
def test_decoys_are_exchangeable_with_rows_of_zero_influence(one_draw: bool, favour: float) -> None:
    """P(w_decoy > w_row) + P(w_decoy = w_row) / 2 = 1/2 for rows of zero influence: mean of 60
    seeds, within 4 standard errors.

    Appended to M, decoys do better by up to 0.005 at K / (n d) = 1/15, for as loads are even, a
    row meets an influential one less often.
    """
    areas = []
    for seed in range(60):
        w, decoys, truth = recover_with_decoys(seed, 12, 0.05, one_draw)
        rows = np.sort(w[truth == 0])
        areas.append(
            (np.searchsorted(rows, decoys, "left") + np.searchsorted(rows, decoys, "right")).mean()
            / 2
            / len(rows)
        )
    error = np.std(areas, ddof=1) / np.sqrt(60)
    assert 0 < error < 0.002
    assert -4 * error <= np.mean(areas) - 0.5 <= favour + 4 * error
