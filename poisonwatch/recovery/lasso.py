"""Sparse recovery of row coefficients from subset measurements, with a certificate.

    w(q) = argmin_w P(w),   P(w) = 1/2 ||y(q) - M w||^2 + lambda ||w||_1

The duality gap bounds P(w) - min P. With residual rho = y - M w and theta = rho * min(1, lambda /
||M^T rho||_inf), which is feasible,

    gap = P(w) - D(theta),   D(theta) = 1/2 ||y||^2 - 1/2 ||y - theta||^2

(Massias, Gramfort and Salmon, "Celer", ICML 2018, section 2, in unscaled form).

M (K, n) is sparse with d ones a column, Y (K, Q) has a column for each query, w (n, Q). M never
becomes dense: beside a copy of M sorted by columns, a query takes O(n) memory.
"""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from poisonwatch.arrays import Array, Integers
from poisonwatch.recovery.decoys import DECOY_QUANTILE, add_decoy_columns
from poisonwatch.recovery.estimate import Estimate, Measurements

# Entries of w that iterate together: with fewer, calls cost more than sums; with more, they leave
# the cache.
BATCH_ENTRIES = 65_536

# Columns of Y that iterate together, at least: fewer are faster one by one.
LEAST_BATCH_COLUMNS = 6

# Rows in a working set, at least.
LEAST_WORKING_SET = 256

# Iterations from one certificate to the next.
CHECK_EVERY = 10

# How far a working set is solved, as a share of the gap over all rows.
WORKING_SET_TOLERANCE = 0.1

# What 1 / step loses with every iteration, and gains with every step that was too long.
SHRINK, GROW = 0.98, 2.0

# The least and the largest penalty that is read off the noise, as shares of lambda_max.
FRACTION_RANGE = (0.001, 0.9)

TINY = np.finfo(float).tiny


@dataclass(frozen=True, slots=True)
class SparseRecovery:
    """Few rows act: the Lasso on the shared subsets, at lambda = `fraction` * lambda_max; None
    reads it off the noise (`universal_fraction`).

    Rows that were measured alone are known, and taken out of the shared subsets first. Where there
    are more rows than subsets, decoys compete with them for the coefficients.
    """

    fraction: float | Array | None = None
    tolerance: float = 1e-6
    max_iter: int = 20_000

    def __call__(self, measured: Measurements) -> Estimate:
        n, K, known, shared = measured.n, measured.K_shared, measured.known, measured.shared
        w = np.zeros((n, measured.y.shape[1]))
        w[known] = measured.y[K:]
        unknown = np.setdiff1d(np.arange(n), known)
        if not len(unknown):
            return Estimate(w, np.zeros(w.shape[1]))
        columns, left = csr_array(shared[:, unknown]), measured.y[:K] - shared @ w
        # The penalty is read off the rows that there are: decoys have no part in it.
        fraction = self.fraction
        if fraction is None:
            fraction = universal_fraction(columns, left)
        # With a subset a row there is nothing to confuse: no decoy could say anything.
        crowded = n > K
        if crowded:
            columns = add_decoy_columns(columns, max(1, n // 4), seed=0)
        found = lasso(columns, left, fraction, tolerance=self.tolerance, max_iter=self.max_iter)
        w[unknown], decoys = np.split(found.w, [len(unknown)])
        if not crowded:
            return replace(found, w=w)
        return replace(found, w=w, decoy_quantile=np.quantile(decoys, DECOY_QUANTILE, axis=0))


def lambda_max(M: csr_array, Y: Float64[Array, "K Q"]) -> Float64[Array, " Q"]:
    """The smallest penalty at which w = 0: ||M^T y||_inf for each column of Y (K, Q)."""
    return cast(Array, np.abs(M.T @ Y).max(axis=0))


def universal_fraction(M: csr_array, Y: Float64[Array, "K Q"]) -> Float64[Array, " Q"]:
    """A penalty for each column of Y (K, Q) from its own noise: a fraction (Q,) of lambda_max,
    within [0.001, 0.9].

    lambda = sigma sqrt(2 log n), which the largest of n Gaussian correlations of scale sigma hardly
    passes: the universal threshold of Donoho and Johnstone (Biometrika 81, 1994). As most rows do
    nothing, sigma is read off all of them: 1.4826 times the median absolute deviation of the n
    correlations M^T y about their median. Where y = 0 any fraction will do, and 0.9 is given.
    """
    fractions = np.full(Y.shape[1], FRACTION_RANGE[1])
    for q, y in enumerate(Y.T):
        correlation = M.T @ y
        sigma = 1.4826 * np.median(np.abs(correlation - np.median(correlation)))
        largest = np.abs(correlation).max()
        if largest > 0:
            fraction = sigma * np.sqrt(2 * np.log(len(correlation))) / largest
            fractions[q] = np.clip(fraction, *FRACTION_RANGE)
    return fractions


def lasso(
    M: csr_array,
    Y: Float64[Array, "K Q"],
    fraction: float | Float64[Array, " Q"],
    *,
    tolerance: float = 1e-6,
    max_iter: int = 20_000,
    start: Float64[Array, "n Q"] | None = None,
) -> Estimate:
    """Solve the Lasso for every column of Y (K, Q) at lambda = `fraction` * lambda_max: one
    fraction, or one a column (Q,).

    The certificate (Q,) is the duality gap relative to P(0) = 1/2 ||y||^2. Ends once each column's
    gap over all n rows is at most `tolerance`, or after `max_iter` iterations; from `start` (n, Q)
    it ends sooner if that is close. Where no two rows share a subset (K = n, d = 1) the solution is
    M^T y soft-thresholded; else it is iterated on working sets. Raises ValueError where y is not
    finite.
    """
    n, Q = M.shape[1], Y.shape[1]
    _check_finite(Y)
    X = _sort_by_columns(M)
    w = np.zeros((n, Q))
    if start is not None:
        w = start.astype(np.float64)
    gap, n_iter = np.empty(Q), 0
    fractions = np.broadcast_to(fraction, Q)
    apart = X.nnz <= M.shape[0] and bool(np.bincount(X.indices).max() <= 1)
    width = BATCH_ENTRIES // n
    if width < LEAST_BATCH_COLUMNS:
        width = 1
    for first in range(0, Q, width):
        q = slice(first, first + width)
        correlation = X.T @ Y[:, q]
        largest = np.abs(correlation).max(axis=0)
        lam = fractions[q] * largest
        # w = 0 is the answer to M^T y = 0, whatever the start.
        w[:, q] *= largest > 0
        if apart:
            squared_norms = np.maximum(_compute_squared_norms(X), TINY)
            w[:, q] = _soft_threshold(correlation, lam) / squared_norms[:, None]
        gap[q], iterations = _solve(X, Y[:, q], lam, w[:, q], tolerance, max_iter)
        n_iter = max(n_iter, iterations)
    return Estimate(w, gap, n_iter)


def _check_finite(Y: Array) -> None:
    broken = int((~np.isfinite(Y)).any(axis=0).sum())
    if broken:
        raise ValueError(
            f"y is not finite in {broken} of {Y.shape[1]} columns: "
            "measure them again, in a wider number format"
        )


def _solve(
    X: csc_array, Y: Array, lam: Array, w: Array, tolerance: float, max_iter: int
) -> tuple[Array, int]:
    """Improve w (n, q) in place until its gaps (q,) over all rows are small; returns them and the
    iterations.

    Each round solves a working set: the rows in use and those of the largest |M^T rho|, 2 K in all,
    for some solution uses at most K (Massias et al., section 4; the columns of M have one length,
    so that the order by |M^T rho| is their order by distance to the constraint). One pass over all
    rows then either certifies the result or picks the next set. With n <= 4 K the first set is
    everything.
    """
    K, n = X.shape
    size, n_iter, rounds = max(LEAST_WORKING_SET, 2 * K), 0, 0
    while True:
        used = np.flatnonzero(w.any(axis=1))
        gap, correlation = _compute_certificate(X, Y, w, Y - X[:, used] @ w[used], lam)
        if bool((gap <= tolerance).all()) or n_iter >= max_iter:
            return gap, n_iter
        rounds += 1
        size = max(size, 2 * len(used))
        # Two sets may take turns for ever: growth ends any cycle.
        if rounds % 16 == 0:
            size *= 2
        if 2 * size >= n:
            goal = np.full(len(lam), tolerance)
            w[:], iterations = _fista(X, Y, lam, w, goal, max_iter - n_iter)
        else:
            rows = _choose_working_set(correlation, used, size)
            goal = WORKING_SET_TOLERANCE * np.maximum(gap, tolerance)
            w[rows], iterations = _fista(X[:, rows], Y, lam, w[rows], goal, max_iter - n_iter)
        n_iter += iterations


def _choose_working_set(correlation: Array, used: Integers, size: int) -> Integers:
    """The rows `used`, and those of the largest correlation (n, q) in any column: `size` in all, in
    order.
    """
    magnitude = np.abs(correlation)
    distance = -(magnitude / np.maximum(magnitude.max(axis=0), TINY)).max(axis=1)
    distance[used] = -np.inf
    return np.sort(np.argpartition(distance, size)[:size])


def _fista(
    X: csc_array, Y: Array, lam: Array, w: Array, goal: Array, max_iter: int
) -> tuple[Array, int]:
    """Minimise P from w (p, q) until each column's gap over these p rows reaches its `goal` (q,);
    returns w and the iterations.

    Beck and Teboulle, SIAM J. Imaging Sciences 2 (2009), with the gradient scheme's restart
    (O'Donoghue and Candes, Found. Comput. Math. 15, 2015) and steps 1/L that grow until ||M (w -
    v)||^2 <= L ||w - v||^2 fails (Scheinberg, Goldfarb and Bai, Found. Comput. Math. 14, 2014): on
    sparse steps L stays far below ||M||_2^2. In the second half of `max_iter` L never falls, so
    that FISTA's own guarantee holds. A column that has arrived leaves the batch.
    """
    M, MT = X.tocsr(), X.T
    found, live = w.copy(), np.arange(Y.shape[1])
    most = _bound_squared_norm(X)
    v, Mw, Mv = w, M @ w, M @ w
    momentum = np.ones(Y.shape[1])
    L = L_last = np.full(Y.shape[1], min(most, _compute_squared_norms(X).max()))
    n_iter = 0
    for n_iter in range(1, max_iter + 1):
        if 1 < n_iter <= max_iter // 2:
            L = L * SHRINK
        gradient = MT @ (Mv - Y)
        w_next = _soft_threshold(v - gradient / L, lam / L)
        Mw_next, step = M @ w_next, w_next - v
        # Only columns whose step was too long are stepped again: the others keep their L.
        long = np.flatnonzero(_is_too_long(step, Mw_next - Mv, L, most))
        while len(long):
            L[long] = np.minimum(GROW * L[long], most)
            w_next[:, long] = _soft_threshold(
                v[:, long] - gradient[:, long] / L[long], lam[long] / L[long]
            )
            Mw_next[:, long], step[:, long] = M @ w_next[:, long], w_next[:, long] - v[:, long]
            long = long[_is_too_long(step[:, long], Mw_next[:, long] - Mv[:, long], L[long], most)]
        change = w_next - w
        # Momentum that points uphill is dropped: the gradient scheme's restart.
        restart = _compute_dots(step, change) < 0
        momentum_next = np.where(restart, 1.0, (1 + np.sqrt(1 + 4 * momentum**2 * L / L_last)) / 2)
        inertia = np.where(restart, 0.0, (momentum - 1) / momentum_next)
        v, Mv = w_next + inertia * change, Mw_next + inertia * (Mw_next - Mw)
        w, Mw, momentum, L_last = w_next, Mw_next, momentum_next, L.copy()
        if n_iter % CHECK_EVERY == 0 or n_iter in (1, max_iter):
            gap, _ = _compute_certificate(X, Y, w, Y - Mw, lam)
            found[:, live] = w
            far = gap > goal
            if not far.any():
                break
            if not far.all():
                live, Y, lam, goal = live[far], Y[:, far], lam[far], goal[far]
                w, v, Mw, Mv = w[:, far], v[:, far], Mw[:, far], Mv[:, far]
                momentum, L, L_last = momentum[far], L[far], L_last[far]
    return found, n_iter


def duality_gap(
    M: csr_array,
    Y: Float64[Array, "K Q"],
    w: Float64[Array, "n Q"],
    lam: Float64[Array, " Q"],
) -> Float64[Array, " Q"]:
    """The gap (Q,) of each column of w (n, Q) over all rows, relative to P(0); 0 where y = 0."""
    gap, _ = _compute_certificate(M, Y, w, Y - M @ w, lam)
    return gap


def _compute_certificate(
    M: csr_array | csc_array, Y: Array, w: Array, residual: Array, lam: Array
) -> tuple[Array, Array]:
    """The gaps (q,) of w (p, q) with its residual (K, q), and M^T residual (p, q)."""
    correlation = M.T @ residual
    largest = np.maximum(correlation.max(axis=0), -correlation.min(axis=0))
    # theta must be feasible: where some |M^T rho| passes lambda, it is scaled down.
    scale = np.where(largest > lam, lam / np.maximum(largest, TINY), 1.0)
    squared, null = _compute_dots(residual, residual), 0.5 * _compute_dots(Y, Y)
    primal = 0.5 * squared + lam * np.abs(w).sum(axis=0)
    dual = scale * _compute_dots(Y, residual) - 0.5 * scale**2 * squared
    return np.maximum(primal - dual, 0.0) / np.where(null > 0, null, 1.0), correlation


def _is_too_long(step: Array, M_step: Array, L: Array, most: float) -> NDArray[np.bool_]:
    """(q,): steps (p, q) whose ||M step||^2 passes L ||step||^2, and whose L may still grow."""
    # Rounding alone must not shorten a step: hence the last factor.
    return (_compute_dots(M_step, M_step) > L * _compute_dots(step, step) * (1 + 1e-9)) & (most > L)


def _compute_dots(a: Array, b: Array) -> Array:
    """a_q^T b_q for each column."""
    return cast(Array, np.einsum("iq,iq->q", a, b))


def _soft_threshold(x: Array, threshold: Array) -> Array:
    return x - np.clip(x, -threshold, threshold)


def _compute_squared_norms(X: csc_array) -> Array:
    """||M_i||^2 (p,) of each column."""
    return cast(Array, X.multiply(X).sum(axis=0))


def _bound_squared_norm(X: csc_array) -> float:
    """An upper bound of ||M||_2^2: ||M||_1 ||M||_inf."""
    return float(abs(X).sum(axis=0).max() * abs(X).sum(axis=1).max())


def _sort_by_columns(M: csr_array) -> csc_array:
    """M sorted by columns, so that M^T rho and a choice of rows are cheap, with narrow indices
    where they suffice.
    """
    if M.nnz < np.iinfo(np.int32).max:
        indices = M.indices.astype(np.int32, copy=False)
        indptr = M.indptr.astype(np.int32, copy=False)
        M = type(M)((M.data, indices, indptr), shape=M.shape)
    return M.tocsc().astype(np.float64, copy=False)
