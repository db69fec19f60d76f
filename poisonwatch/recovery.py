"""Sparse recovery of row coefficients from subset measurements, with a certificate.

    w(q) = argmin_w P(w),   P(w) = 1/2 ||y(q) - M w||^2 + lambda ||w||_1

The duality gap bounds P(w) - min P. With residual rho = y - M w and theta = rho * min(1, lambda / ||M^T rho||_inf), which is feasible,

    gap = P(w) - D(theta),   D(theta) = 1/2 ||y||^2 - 1/2 ||y - theta||^2

(Massias, Gramfort and Salmon, "Celer", ICML 2018, section 2, in unscaled form).
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recovery:
    """`w` (n, Q) coefficients, `gap` (Q,) duality gaps relative to P(0) = 1/2 ||y||^2, `lam` (Q,) penalties, `n_iter` iterations."""

    w: Array
    gap: Array
    lam: Array
    n_iter: int


def lambda_max(M: csr_array, Y: Array) -> Array:
    """The smallest penalty at which w = 0: ||M^T y||_inf for each column of Y (K, Q)."""
    return cast(Array, np.abs(M.T @ Y).max(axis=0))


def lasso(M: csr_array, Y: Array, fraction: float, tolerance: float = 1e-6, max_iter: int = 20_000) -> Recovery:
    """Solve the Lasso for every column of Y (K, Q) at lambda = `fraction` * lambda_max, by FISTA with adaptive restart.

    Beck and Teboulle, SIAM J. Imaging Sciences 2 (2009); restart: O'Donoghue and Candes, Found. Comput. Math. 15 (2015), gradient scheme.
    Stops once every column's relative gap is below `tolerance`.
    """
    lam = fraction * lambda_max(M, Y)
    step = 1.0 / _squared_norm(M)
    w = np.zeros((M.shape[1], Y.shape[1]))
    v, momentum = w, np.ones(Y.shape[1])
    gap = np.full(Y.shape[1], np.inf)
    n_iter = 0
    for n_iter in range(1, max_iter + 1):
        w_next = _soft_threshold(v - step * (M.T @ (M @ v - Y)), step * lam)
        momentum_next = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        restart = ((v - w_next) * (w_next - w)).sum(axis=0) > 0
        momentum_next[restart] = 1.0
        v = w_next + np.where(restart, 0.0, (momentum - 1) / momentum_next) * (w_next - w)
        w, momentum = w_next, momentum_next
        if n_iter % 10 == 0 or n_iter == max_iter:
            gap = duality_gap(M, Y, w, lam)
            if bool((gap <= tolerance).all()):
                break
    return Recovery(w, gap, lam, n_iter)


def duality_gap(M: csr_array, Y: Array, w: Array, lam: Array) -> Array:
    """The gap of each column, relative to P(0); 0 where y = 0."""
    residual = Y - M @ w
    primal = 0.5 * (residual**2).sum(axis=0) + lam * np.abs(w).sum(axis=0)
    correlation = np.abs(M.T @ residual).max(axis=0)
    theta = residual * np.where(correlation > lam, lam / np.maximum(correlation, np.finfo(float).tiny), 1.0)
    null = 0.5 * (Y**2).sum(axis=0)
    gap = primal - (null - 0.5 * ((Y - theta) ** 2).sum(axis=0))
    return cast(Array, np.maximum(gap, 0.0) / np.where(null > 0, null, 1.0))


def _soft_threshold(x: Array, threshold: Array) -> Array:
    return cast(Array, np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0))


def _squared_norm(M: csr_array) -> float:
    """An upper bound of ||M||_2^2: ||M||_1 ||M||_inf."""
    return float(abs(M).sum(axis=0).max() * abs(M).sum(axis=1).max())
