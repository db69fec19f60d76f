"""The Lasso and its certificate, its penalty, and what recovery makes of it."""

import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array, hstack, vstack
from sklearn.linear_model import Lasso
from slow_tests import sample

from poisonwatch.datasets.synthetic import make_sparse_problem
from poisonwatch.recovery.decoys import DECOY_QUANTILE, add_decoy_columns
from poisonwatch.recovery.estimate import Measurements
from poisonwatch.recovery.lasso import (
    SparseRecovery,
    duality_gap,
    lambda_max,
    lasso,
    universal_fraction,
)
from poisonwatch.recovery.membership import draw_random_membership


def problem(
    seed: int, K: int = 30, n: int = 60, Q: int = 3, d: int = 3
) -> tuple[csr_array, np.ndarray]:
    M = draw_random_membership([str(i) for i in range(n)], K, d, seed).matrix()
    return M, np.random.default_rng(seed).normal(size=(K, Q))


def wide_problem(seed: int, Q: int = 1) -> tuple[csr_array, np.ndarray]:
    """n = 12,000 = 200 K: solved on working sets, a column of Y at a time; y of such problems,
    drawn apart.
    """
    M, _, _ = make_sparse_problem(12_000, 60, 8, 4.0, seed, d=5)
    return M, np.column_stack(
        [make_sparse_problem(12_000, 60, 8, 4.0, 100 * seed + q, d=5)[1] for q in range(Q)]
    )


def objective(M: csr_array, Y: np.ndarray, w: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """P(w) = 1/2 ||y - M w||^2 + lambda ||w||_1."""
    return 0.5 * ((Y - M @ w) ** 2).sum(axis=0) + lam * np.abs(w).sum(axis=0)


def penalties(M: csr_array, Y: np.ndarray, fraction: float | np.ndarray) -> np.ndarray:
    """lambda (Q,) = fraction * lambda_max."""
    return fraction * lambda_max(M, Y)


def null(Y: np.ndarray) -> np.ndarray:
    """P(0), the unit of a gap."""
    return 0.5 * (Y**2).sum(axis=0)


def sklearn_lasso(M: csr_array, Y: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """The same problem in scikit-learn's scaling, alpha = lambda / K."""
    K = M.shape[0]
    fits = [
        Lasso(alpha=penalty / K, fit_intercept=False, tol=1e-12, max_iter=200_000).fit(
            M.toarray(), y
        )
        for penalty, y in zip(lam, Y.T, strict=True)
    ]
    return np.column_stack([fit.coef_ for fit in fits])


# --- the solution


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_lasso_equals_scikit_learn(seed: int, fraction: float) -> None:
    """P(w) = P(w_sklearn), and M w, which is unique, is the same."""
    M, Y = problem(seed)
    found = lasso(M, Y, fraction, tolerance=1e-10)
    lam = penalties(M, Y, fraction)
    expected = sklearn_lasso(M, Y, lam)
    np.testing.assert_allclose(
        objective(M, Y, found.w, lam), objective(M, Y, expected, lam), rtol=1e-8
    )
    np.testing.assert_allclose(M @ found.w, M @ expected, atol=1e-3)


@pytest.mark.parametrize("seed", sample(range(3), 3))
@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.4])
def test_working_sets_never_change_the_answer(seed: int, fraction: float) -> None:
    """With n = 200 K, P(w) and M w are those of scikit-learn, which looks at every row (w itself
    need not be unique: 0/1 columns).
    """
    M, Y = wide_problem(seed)
    found = lasso(M, Y, fraction, tolerance=1e-11)
    lam = penalties(M, Y, fraction)
    expected = sklearn_lasso(M, Y, lam)
    np.testing.assert_allclose(
        objective(M, Y, found.w, lam), objective(M, Y, expected, lam), rtol=1e-9
    )
    np.testing.assert_allclose(M @ found.w, M @ expected, atol=1e-3)
    assert found.w.any()


@pytest.mark.parametrize("fraction", [0.01, 0.2])
@pytest.mark.parametrize("wide", [False, True])
def test_solution_satisfies_the_optimality_conditions(fraction: float, wide: bool) -> None:
    """|M_i^T rho| <= lambda for every row, and M_i^T rho = lambda sign(w_i) where w_i != 0."""
    M, Y = wide_problem(0, Q=2) if wide else problem(0)
    found = lasso(M, Y, fraction, tolerance=1e-13)
    correlation = M.T @ (Y - M @ found.w) / penalties(M, Y, fraction)
    assert np.abs(correlation).max() <= 1 + 1e-4
    used = found.w != 0
    np.testing.assert_allclose(correlation[used], np.sign(found.w[used]), atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_lambda_max_is_the_smallest_penalty_that_silences_every_row(seed: int) -> None:
    """w = 0 at lambda_max = ||M^T y||_inf; w != 0 just below."""
    M, Y = problem(seed)
    np.testing.assert_allclose(lambda_max(M, Y), np.abs(M.toarray().T @ Y).max(axis=0))
    assert not lasso(M, Y, 1.0).w.any()
    assert lasso(M, Y, 0.98, tolerance=1e-12).w.any(axis=0).all()


@pytest.mark.parametrize("n", [1, 40, 3000])
def test_one_subset_a_row_is_soft_thresholding_without_an_iteration(n: int) -> None:
    """M a permutation (K = n, d = 1): w = sign(M^T y) max(|M^T y| - lambda, 0)."""
    M = draw_random_membership([str(i) for i in range(n)], n, 1, 0).matrix()
    Y = np.random.default_rng(0).normal(size=(n, 2))
    found = lasso(M, Y, 0.3)
    x = M.T @ Y
    np.testing.assert_allclose(
        found.w, np.sign(x) * np.maximum(np.abs(x) - penalties(M, Y, 0.3), 0), atol=1e-12
    )
    assert found.n_iter == 0
    assert (found.certificate <= 1e-12).all()


def test_no_penalty_solves_a_consistent_system() -> None:
    """lambda = 0: M w = y, for M = I and for more rows than subsets."""
    Y = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_allclose(lasso(csr_array(eye_array(20)), Y, 0.0).w, Y, atol=1e-12)
    M, Y = problem(0)
    found = lasso(M, Y, 0.0)
    assert (found.certificate <= 1e-6).all()
    assert (((Y - M @ found.w) ** 2).sum(axis=0) <= 1e-6 * (Y**2).sum(axis=0)).all()


# --- the certificate


@pytest.mark.parametrize("seed", sample(range(5), 4))
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("Q", [1, 3, 70])
def test_reported_gap_is_below_the_tolerance_and_is_the_gap(
    seed: int, fraction: float, Q: int
) -> None:
    """gap(w) <= 1e-6 for every column, with w as returned."""
    M, Y = problem(seed, Q=Q)
    found = lasso(M, Y, fraction)
    assert (found.certificate <= 1e-6).all()
    gap = duality_gap(M, Y, found.w, penalties(M, Y, fraction))
    np.testing.assert_allclose(found.certificate, gap, rtol=1e-6, atol=1e-14)
    assert 1 <= found.n_iter <= 20_000


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_gap_over_a_working_set_is_certified_over_all_rows(fraction: float) -> None:
    """gap = P(w) - D(theta) by hand, theta = rho min(1, lambda / max_i |M_i^T rho|) with the
    maximum over all n rows.
    """
    M, Y = wide_problem(1)
    found = lasso(M, Y, fraction)
    y, w, lam = Y[:, 0], found.w[:, 0], penalties(M, Y, fraction)[0]
    rho = y - M.toarray() @ w
    theta = rho * min(1.0, lam / np.abs(M.toarray().T @ rho).max())
    gap = (
        0.5 * rho @ rho + lam * np.abs(w).sum() - 0.5 * y @ y + 0.5 * (y - theta) @ (y - theta)
    ) / (0.5 * y @ y)
    np.testing.assert_allclose(found.certificate, gap, atol=1e-12)
    assert gap <= 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_gap_bounds_how_far_any_w_is_from_optimal(seed: int) -> None:
    """P(w) - min P <= gap(w) P(0), for w far from and near to the optimum."""
    M, Y = problem(seed)
    best, lam = lasso(M, Y, 0.1, tolerance=1e-12), penalties(M, Y, 0.1)
    draw = np.random.default_rng(seed + 100)
    for size in (1.0, 0.1, 1e-3):
        w = best.w + size * draw.normal(size=best.w.shape)
        excess = (objective(M, Y, w, lam) - objective(M, Y, best.w, lam)) / null(Y)
        assert (excess <= duality_gap(M, Y, w, lam) + 1e-9).all()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("max_iter", [0, 1, 3])
def test_too_few_iterations_are_confessed_by_the_gap(wide: bool, max_iter: int) -> None:
    """Stopped early, the gap stays above the tolerance and still bounds the excess."""
    M, Y = wide_problem(0) if wide else problem(0)
    early, best = lasso(M, Y, 0.01, max_iter=max_iter), lasso(M, Y, 0.01, tolerance=1e-10)
    lam = penalties(M, Y, 0.01)
    excess = objective(M, Y, early.w, lam) - objective(M, Y, best.w, lam)
    assert early.n_iter == max_iter
    assert (early.certificate > 1e-6).any()
    assert (excess <= early.certificate * null(Y) + 1e-12).all()


def test_measurement_of_nothing_recovers_nothing() -> None:
    """y = 0 gives w = 0 with gap 0, whatever the start, beside a column that is not 0."""
    M, Y = problem(2)
    Y[:, 1] = 0
    for start in (None, np.ones((60, 3))):
        found = lasso(M, Y, 0.1, start=start)
        assert not found.w[:, 1].any()
        assert found.certificate[1] == 0
        assert penalties(M, Y, 0.1)[1] == 0
        assert found.w[:, 0].any()
        assert np.isfinite(found.w).all()


def test_measurements_that_are_not_finite_are_refused_with_their_number() -> None:
    """NaN and infinity have no Lasso."""
    M, Y = problem(0)
    Y[3, 0], Y[4, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="y is not finite in 2 of 3 columns"):
        lasso(M, Y, 0.1)


# --- what the solution does not depend on


@pytest.mark.parametrize("wide", [False, True])
def test_rows_and_subsets_may_stand_in_any_order(wide: bool) -> None:
    """For permutations P of the rows and R of the subsets, min P stays and the fit moves along: R M
    P w(R y; R M P) = R M w(y; M).
    """
    M, Y = wide_problem(3) if wide else problem(3)
    draw = np.random.default_rng(0)
    P, R = draw.permutation(M.shape[1]), draw.permutation(M.shape[0])
    moved = csr_array(csr_array(M[R])[:, P])
    straight, shuffled = lasso(M, Y, 0.1, tolerance=1e-12), lasso(moved, Y[R], 0.1, tolerance=1e-12)
    np.testing.assert_allclose(
        objective(moved, Y[R], shuffled.w, penalties(moved, Y[R], 0.1)),
        objective(M, Y, straight.w, penalties(M, Y, 0.1)),
        rtol=1e-9,
    )
    np.testing.assert_allclose(moved @ shuffled.w, (M @ straight.w)[R], atol=1e-4)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("factor", [-1.0, 2.0**-40, -(2.0**30)])
def test_solution_scales_with_the_measurement(wide: bool, factor: float) -> None:
    """w(c y) = c w(y), to the bit where c is a power of two: lambda and the gap are relative."""
    M, Y = wide_problem(1) if wide else problem(1)
    one, scaled = lasso(M, Y, 0.1), lasso(M, factor * Y, 0.1)
    np.testing.assert_array_equal(scaled.w, factor * one.w)
    np.testing.assert_array_equal(scaled.certificate, one.certificate)
    assert scaled.n_iter == one.n_iter


@pytest.mark.parametrize("wide", [False, True])
def test_columns_are_solved_apart(wide: bool) -> None:
    """M w of a query depends on no other query, and each may have its own penalty."""
    M, Y = wide_problem(1, Q=3) if wide else problem(1, Q=20)
    fractions = np.linspace(0.05, 0.5, Y.shape[1])
    together = lasso(M, Y, fractions, tolerance=1e-12)
    for q, fraction in enumerate(fractions):
        alone = lasso(M, Y[:, [q]], float(fraction), tolerance=1e-12)
        np.testing.assert_allclose(M @ alone.w[:, 0], M @ together.w[:, q], atol=1e-4)


def test_twins_share_what_one_row_would_get() -> None:
    """Columns that come twice change neither min P nor M w, and the coefficients of twins never
    oppose.
    """
    M, Y = problem(4)
    single, double = (
        lasso(M, Y, 0.1, tolerance=1e-12),
        lasso(csr_array(hstack([M, M])), Y, 0.1, tolerance=1e-12),
    )
    merged = double.w[:60] + double.w[60:]
    lam = penalties(M, Y, 0.1)
    np.testing.assert_allclose(
        objective(M, Y, merged, lam), objective(M, Y, single.w, lam), rtol=1e-9
    )
    np.testing.assert_allclose(M @ merged, M @ single.w, atol=1e-4)
    assert (double.w[:60] * double.w[60:] >= 0).all()


def test_row_without_a_subset_and_subset_without_a_row_do_no_harm() -> None:
    """M_i = 0 gives w_i = 0; an empty subset's measurement is noise that no row explains."""
    M, Y = problem(0)
    padded = csr_array((M.data, M.indices, np.append(M.indptr, M.indptr[-1])), shape=(31, 61))
    found = lasso(padded, np.vstack([Y, np.ones(3)]), 0.1, tolerance=1e-12)
    assert not found.w[60].any()
    np.testing.assert_allclose(found.w[:60], lasso(M, Y, 0.1, tolerance=1e-12).w, atol=1e-4)


@pytest.mark.parametrize("wide", [False, True])
def test_start_changes_the_way_and_not_the_answer(wide: bool) -> None:
    """From its own answer the solver takes no iteration; from anywhere it ends at min P. The start
    itself stays.
    """
    M, Y = wide_problem(2) if wide else problem(2)
    cold = lasso(M, Y, 0.1)
    again = lasso(M, Y, 0.1, start=cold.w)
    np.testing.assert_array_equal(again.w, cold.w)
    assert again.n_iter == 0
    start = np.random.default_rng(0).normal(size=cold.w.shape)
    kept = start.copy()
    warm = lasso(M, Y, 0.1, start=start)
    np.testing.assert_array_equal(start, kept)
    lam = penalties(M, Y, 0.1)
    apart = np.abs(objective(M, Y, warm.w, lam) - objective(M, Y, cold.w, lam))
    assert (apart <= 1e-6 * null(Y)).all()


@pytest.mark.parametrize("wide", [False, True])
def test_inputs_are_left_alone_and_their_number_format_does_not_matter(wide: bool) -> None:
    """M and y are read only; ones and zeros mean the same as integers, booleans or in single
    precision.
    """
    M, Y = wide_problem(0) if wide else problem(0)
    M, Y = M.copy(), Y.copy()
    parts = [M.data.copy(), M.indices.copy(), M.indptr.copy(), Y.copy()]
    for array in (M.data, M.indices, M.indptr, Y):
        array.flags.writeable = False
    w = lasso(M, Y, 0.1).w
    add_decoy_columns(M, 5, 0)
    universal_fraction(M, Y)
    for array, before in zip((M.data, M.indices, M.indptr, Y), parts, strict=True):
        np.testing.assert_array_equal(array, before)
    for format in (np.int64, np.int8, bool, np.float32):
        np.testing.assert_array_equal(lasso(M.astype(format), Y, 0.1).w, w)


# --- what it finds


def test_planted_sparse_rows_are_recovered_from_few_subsets() -> None:
    """5 of 200 rows with effect 1 +- noise .02, K = 60 = n x 0.3: the five largest coefficients are
    theirs in at least 18 of 20 seeds.
    """
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


def test_universal_penalty_is_the_robust_scale_of_the_correlations() -> None:
    """lambda = 1.4826 MAD(M^T y) sqrt(2 log n) over lambda_max, clipped to [0.001, 0.9]; 0.9 for y
    = 0.
    """
    M, y, _ = make_sparse_problem(3000, 400, 4, 50.0, seed=1)
    x = M.toarray().T @ y
    expected = (
        1.4826 * np.median(np.abs(x - np.median(x))) * np.sqrt(2 * np.log(3000)) / np.abs(x).max()
    )
    found = universal_fraction(M, np.column_stack([y, -1e9 * y, 0 * y]))
    np.testing.assert_allclose(found, [expected, expected, 0.9])
    assert 0.001 < expected < 0.9
    few, effect = csr_array(eye_array(50)), np.zeros((50, 1))
    effect[0] = 1.0
    assert universal_fraction(few, effect) == [0.001]


def test_universal_penalty_passes_hardly_any_noise_and_keeps_strong_rows() -> None:
    """Mean of 20 seeds: of noise alone at most 6 of 2000 rows pass (0.9 is the clip); 4 strong rows
    all pass, with 0.5 others at most.
    """
    noise, kept, others = [], [], []
    for seed in range(20):
        M, y, _ = make_sparse_problem(2000, 500, 0, seed=seed)
        noise.append(np.count_nonzero(lasso(M, y[:, None], universal_fraction(M, y[:, None])).w))
        M, y, w = make_sparse_problem(2000, 500, 4, 5.0, seed=seed)
        found = lasso(M, y[:, None], universal_fraction(M, y[:, None])).w[:, 0]
        kept.append(np.count_nonzero(found[w != 0]))
        others.append(np.count_nonzero(found[w == 0]))
    assert np.mean(noise) <= 6
    assert np.mean(kept) == 4
    assert np.mean(others) <= 0.5


# --- from measurements


def measured(K: int, n: int, single: int = 0, Q: int = 2) -> Measurements:
    """Random subsets, the last `single` of them of one row each."""
    M, Y = problem(0, K, n, Q)
    alone = csr_array((np.ones(single), (np.arange(single), np.arange(single))), shape=(single, n))
    own = np.random.default_rng(1).normal(size=(single, Q))
    features = np.zeros((n, 0), dtype=np.float32)
    stacked = csr_array(vstack([M, alone]))
    return Measurements(stacked, np.vstack([Y, own]), features, np.ones(n), single)


def test_rows_measured_alone_are_known_and_taken_out() -> None:
    """w_i = y_i for these; the others are the Lasso of y - M_known y_known on what is left of M."""
    problem = measured(30, 60, single=5)
    assert problem.known.tolist() == [0, 1, 2, 3, 4]
    found = SparseRecovery(0.1)(problem)
    np.testing.assert_array_equal(found.w[:5], problem.y[30:])
    columns, left = problem.shared[:, 5:], problem.y[:30] - problem.shared[:, :5] @ problem.y[30:]
    decoys = add_decoy_columns(csr_array(columns), 15, 0)
    expected = lasso(decoys, left, 0.1)
    np.testing.assert_allclose(found.w[5:], expected.w[:55], atol=1e-9)
    quantile = np.quantile(expected.w[55:], DECOY_QUANTILE, axis=0)
    np.testing.assert_allclose(found.decoy_quantile, quantile, atol=1e-9)
    assert found.worst == found.certificate.max() <= 1e-6


def test_the_penalty_left_open_is_the_universal_one() -> None:
    """fraction = None: lambda is read off the shared subsets."""
    problem = measured(60, 60)
    found, given = SparseRecovery()(problem), universal_fraction(problem.shared, problem.y)
    np.testing.assert_array_equal(found.w, SparseRecovery(given)(problem).w)
    assert found.decoy_quantile is None


def test_nothing_is_left_to_recover_where_every_row_was_measured_alone() -> None:
    """w = y of the single rows, exact; the worst of no certificates is 0."""
    problem = measured(30, 60, single=60)
    found = SparseRecovery()(problem)
    np.testing.assert_array_equal(found.w, problem.y[30:])
    assert found.worst == 0
