"""The Lasso and its certificate."""

import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array
from sklearn.linear_model import Lasso

from poisonwatch.membership import draw_membership
from poisonwatch.recovery import duality_gap, lambda_max, lasso


def problem(seed: int, K: int = 30, n: int = 60, Q: int = 3, d: int = 3) -> tuple[csr_array, np.ndarray]:
    M = draw_membership([str(i) for i in range(n)], K, d, seed).matrix()
    return M, np.random.default_rng(seed).normal(size=(K, Q))


def objective(M: csr_array, Y: np.ndarray, w: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """P(w) = 1/2 ||y - M w||^2 + lambda ||w||_1."""
    return 0.5 * ((Y - M @ w) ** 2).sum(axis=0) + lam * np.abs(w).sum(axis=0)


def sklearn_lasso(M: csr_array, Y: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """The same problem in scikit-learn's scaling, alpha = lambda / K."""
    K = M.shape[0]
    fits = [
        Lasso(alpha=penalty / K, fit_intercept=False, tol=1e-12, max_iter=200_000).fit(M.toarray(), y)
        for penalty, y in zip(lam, Y.T, strict=True)
    ]
    return np.column_stack([fit.coef_ for fit in fits])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_lasso_equals_scikit_learn(seed: int, fraction: float) -> None:
    """P(w) = P(w_sklearn), and M w, which is unique, is the same."""
    M, Y = problem(seed)
    found = lasso(M, Y, fraction, tolerance=1e-10)
    expected = sklearn_lasso(M, Y, found.lam)
    np.testing.assert_allclose(objective(M, Y, found.w, found.lam), objective(M, Y, expected, found.lam), rtol=1e-8)
    np.testing.assert_allclose(M @ found.w, M @ expected, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5])
def test_reported_gap_is_below_the_tolerance_and_is_the_gap(seed: int, fraction: float) -> None:
    """gap(w) <= 1e-6 for every column, with w as returned."""
    M, Y = problem(seed)
    found = lasso(M, Y, fraction)
    assert (found.gap <= 1e-6).all()
    np.testing.assert_allclose(found.gap, duality_gap(M, Y, found.w, found.lam))
    assert 1 <= found.n_iter <= 20_000


@pytest.mark.parametrize("seed", range(5))
def test_gap_bounds_how_far_any_w_is_from_optimal(seed: int) -> None:
    """P(w) - min P <= gap(w) P(0), for w far from and near to the optimum."""
    M, Y = problem(seed)
    best = lasso(M, Y, 0.1, tolerance=1e-12)
    null = 0.5 * (Y**2).sum(axis=0)
    draw = np.random.default_rng(seed + 100)
    for size in (1.0, 0.1, 1e-3):
        w = best.w + size * draw.normal(size=best.w.shape)
        excess = (objective(M, Y, w, best.lam) - objective(M, Y, best.w, best.lam)) / null
        assert (excess <= duality_gap(M, Y, w, best.lam) + 1e-9).all()


def test_too_few_iterations_are_confessed_by_the_gap() -> None:
    """Stopped early, the gap stays above the tolerance and still bounds the excess."""
    M, Y = problem(0)
    early, best = lasso(M, Y, 0.01, max_iter=3), lasso(M, Y, 0.01, tolerance=1e-10)
    excess = objective(M, Y, early.w, early.lam) - objective(M, Y, best.w, best.lam)
    assert early.n_iter == 3
    assert (early.gap > 1e-6).any()
    assert (excess <= early.gap * 0.5 * (Y**2).sum(axis=0)).all()


@pytest.mark.parametrize("seed", range(5))
def test_lambda_max_is_the_smallest_penalty_that_silences_every_row(seed: int) -> None:
    """w = 0 at lambda_max = ||M^T y||_inf; w != 0 just below."""
    M, Y = problem(seed)
    np.testing.assert_allclose(lambda_max(M, Y), np.abs(M.toarray().T @ Y).max(axis=0))
    assert not lasso(M, Y, 1.0).w.any()
    assert lasso(M, Y, 0.98, tolerance=1e-12).w.any(axis=0).all()


def test_one_subset_a_row_is_soft_thresholding() -> None:
    """M a permutation (K = n, d = 1): w = sign(M^T y) max(|M^T y| - lambda, 0)."""
    M, Y = problem(0, K=40, n=40, d=1)
    found = lasso(M, Y, 0.3, tolerance=1e-12)
    x = M.T @ Y
    np.testing.assert_allclose(found.w, np.sign(x) * np.maximum(np.abs(x) - found.lam, 0), atol=1e-12)


def test_columns_are_solved_apart_and_scale() -> None:
    """w of a query depends on no other query, and w(c y) = c w(y)."""
    M, Y = problem(1)
    together = lasso(M, Y, 0.1, tolerance=1e-12)
    alone = lasso(M, 1000 * Y[:, :1], 0.1, tolerance=1e-12)
    np.testing.assert_allclose(M @ alone.w[:, 0], 1000 * (M @ together.w[:, 0]), rtol=1e-3, atol=1e-2)


def test_measurement_of_nothing_recovers_nothing() -> None:
    """y = 0 gives w = 0 with gap 0, beside a column that is not 0."""
    M, Y = problem(2)
    Y[:, 1] = 0
    found = lasso(M, Y, 0.1)
    assert not found.w[:, 1].any()
    assert found.gap[1] == 0
    assert found.w[:, 0].any()
    assert np.isfinite(found.w).all()


def test_no_penalty_solves_a_consistent_system() -> None:
    """lambda = 0, M = I: w = y."""
    Y = np.random.default_rng(0).normal(size=(20, 2))
    found = lasso(csr_array(eye_array(20)), Y, 0.0)
    np.testing.assert_allclose(found.w, Y, atol=1e-3)
    assert (found.gap <= 1e-6).all()


def test_planted_sparse_rows_are_recovered_from_few_subsets() -> None:
    """5 of 200 rows with effect 1 +- noise .02, K = 60 = n x 0.3: the five largest coefficients are theirs in at least 18 of 20 seeds."""
    hits = 0
    for seed in range(20):
        M, _ = problem(seed, K=60, n=200)
        draw = np.random.default_rng(seed)
        planted = draw.choice(200, 5, replace=False)
        truth = np.zeros(200)
        truth[planted] = 1.0
        y = M @ truth + 0.02 * draw.normal(size=60)
        w = lasso(M, y[:, None], 0.02).w[:, 0]
        hits += set(np.argsort(-w)[:5]) == set(planted)
    assert hits >= 18
