"""What the recovery costs: seconds on one core, the certified gap, and peers where they are
feasible.

    python benchmarks/lasso.py [--rows 1000000] [--subsets 1000] [--d 10] [--seeds 3]

First sparse problems with a million rows, a query at a time; then smaller ones beside
scikit-learn's Lasso (and celer's, where installed), each to the same gap; then many queries at once
at a tiny penalty, beside plain FISTA on all rows. Seconds are CPU seconds of this process on one
thread, so that other work on the machine hardly counts.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ[
    "MKL_NUM_THREADS"
] = "1"  # before numpy is loaded

import argparse
import importlib.util
import resource
import time
from collections.abc import Callable

import numpy as np
from scipy.sparse import csc_array, csr_array
from sklearn.linear_model import Lasso

from poisonwatch.datasets.synthetic import make_sparse_problem
from poisonwatch.recovery.estimate import Estimate
from poisonwatch.recovery.lasso import duality_gap, lambda_max, lasso

Solver = Callable[[csr_array, np.ndarray, float], Estimate]
PLANTED = [  # s, snr, fraction
    (10, 1.0, 0.3),
    (20, 100.0, 0.1),
    (50, 10.0, 0.1),
    (50, 10.0, 0.05),
    (100, 3.0, 0.05),
    (100, 3.0, 0.02),
    (50, np.inf, 0.05),
]


def narrow(M: csr_array) -> csc_array:
    """M as peers want it: by columns, 32-bit indices."""
    X = M.tocsc()
    return csc_array((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), shape=X.shape)


def by_scikit_learn(M: csr_array, Y: np.ndarray, fraction: float) -> Estimate:
    """Coordinate descent with gap-safe screening; its tolerance is relative to ||y||^2, ours to
    half of that.
    """
    lam = fraction * lambda_max(M, Y)
    X = narrow(M)
    fits = [
        Lasso(alpha=penalty / len(Y), fit_intercept=False, tol=0.5e-6, max_iter=100_000).fit(X, y)
        for penalty, y in zip(lam, Y.T, strict=True)
    ]
    w = np.column_stack([fit.coef_ for fit in fits])
    return Estimate(w, duality_gap(M, Y, w, lam), max(fit.n_iter_ for fit in fits))


def by_celer(M: csr_array, Y: np.ndarray, fraction: float) -> Estimate:
    """Working sets with dual extrapolation; its tolerance is relative to ||y||^2, too."""
    from celer import Lasso as Celer

    lam = fraction * lambda_max(M, Y)
    X = narrow(M)
    fits = [
        Celer(alpha=penalty / len(Y), fit_intercept=False, tol=0.5e-6).fit(X, y)
        for penalty, y in zip(lam, Y.T, strict=True)
    ]
    w = np.column_stack([fit.coef_ for fit in fits])
    return Estimate(w, duality_gap(M, Y, w, lam), max(fit.n_iter_ for fit in fits))


def by_plain_fista(M: csr_array, Y: np.ndarray, fraction: float) -> Estimate:
    """Fixed step 1 / (||M||_1 ||M||_inf), adaptive restart, all rows and columns at once: what
    recovery did at first.
    """
    lam = fraction * lambda_max(M, Y)
    step = 1.0 / float(M.sum(axis=0).max() * M.sum(axis=1).max())
    v = w = np.zeros((M.shape[1], Y.shape[1]))
    momentum, gap, n_iter = np.ones(Y.shape[1]), np.full(Y.shape[1], np.inf), 0
    while n_iter < 20_000 and (gap > 1e-6).any():
        x = v - step * (M.T @ (M @ v - Y))
        w_next = np.sign(x) * np.maximum(np.abs(x) - step * lam, 0.0)
        momentum_next = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        restart = ((v - w_next) * (w_next - w)).sum(axis=0) > 0
        momentum_next[restart] = 1.0
        v = w_next + np.where(restart, 0.0, (momentum - 1) / momentum_next) * (w_next - w)
        w, momentum, n_iter = w_next, momentum_next, n_iter + 1
        if n_iter % 10 == 0:
            gap = duality_gap(M, Y, w, lam)
    return Estimate(w, gap, n_iter)


def timed(solver: Solver, M: csr_array, Y: np.ndarray, fraction: float) -> tuple[float, Estimate]:
    start = time.process_time()
    found = solver(M, Y, fraction)
    return time.process_time() - start, found


def cells(runs: list[tuple[float, Estimate]]) -> str:
    """Seconds (median, and largest of several), worst gap, median iterations, median support of a
    query.
    """
    seconds = [s for s, _ in runs]
    worst = f" ({max(seconds):.2f})" if len(runs) > 1 else ""
    support = [np.count_nonzero(found.w) / found.w.shape[1] for _, found in runs]
    return (
        f"{np.median(seconds):.2f}{worst} | {max(found.worst for _, found in runs):.1e} | "
        f"{np.median([found.n_iter for _, found in runs]):.0f} | {np.median(support):.0f}"
    )


def table(first: str) -> None:
    print(
        f"\n| {first} | solver | seconds | gap | iterations | support |\n|---|---|---|---|---|---|"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--subsets", type=int, default=1000)
    parser.add_argument("--d", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    peers: dict[str, Solver] = {"scikit-learn": by_scikit_learn}
    if importlib.util.find_spec("celer"):
        peers["celer"] = by_celer

    print(
        f"n = {options.rows}, K = {options.subsets}, d = {options.d}, one query, {options.seeds} seeds: median (largest)"
    )
    table("s, snr, lambda / lambda_max")
    for s, snr, fraction in PLANTED:
        runs = []
        for seed in range(options.seeds):
            M, y, _ = make_sparse_problem(options.rows, options.subsets, s, snr, seed, options.d)
            runs.append(timed(lasso, M, y[:, None], fraction))
        print(f"| {s}, {snr:g}, {fraction} | poisonwatch | {cells(runs)} |", flush=True)
    print(
        f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, M and its generator included"
    )

    few = options.rows // 20
    print(f"\nn = {few}, K = {options.subsets}, d = {options.d}, one query, seed 0")
    table("s, snr, lambda / lambda_max")
    for s, snr, fraction in PLANTED:
        M, y, _ = make_sparse_problem(few, options.subsets, s, snr, 0, options.d)
        for name, solver in {"poisonwatch": lasso, **peers}.items():
            print(
                f"| {s}, {snr:g}, {fraction} | {name} | {cells([timed(solver, M, y[:, None], fraction)])} |",
                flush=True,
            )

    print("\ndense influence (Student t, 4 degrees of freedom), lambda = 0.001 lambda_max, d = 3")
    table("n, K, Q")
    for n, K, Q in (
        (300, 75, 60),
        (300, 300, 60),
        (1000, 250, 1),
        (1000, 250, 60),
        (1000, 500, 60),
        (5000, 1250, 12),
        (5000, 5000, 12),
    ):
        M, _, _ = make_sparse_problem(n, K, 0, seed=0)
        Y = M @ np.random.default_rng(0).standard_t(4, size=(n, Q))
        for name, solver in {"poisonwatch": lasso, "plain FISTA": by_plain_fista, **peers}.items():
            print(f"| {n}, {K}, {Q} | {name} | {cells([timed(solver, M, Y, 0.001)])} |", flush=True)


if __name__ == "__main__":
    main()
