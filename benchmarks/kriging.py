"""What kriging costs where rows share subsets: processor seconds on one thread, products with V, and
the certified residual, of the factorisation and of conjugate gradients with either preconditioner.

    python benchmarks/kriging.py [--problems 4000/2000 8000/4000 4000/4000] [--queries 60]
    [--design alike] [--alone 0]

A problem is n/K: n rows around 200 directions of 189 dimensions, in K subsets (d = 3; 1 where K =
n), `--alone` more rows measured alone. `w` is the largest difference to the factorisation's, over
the largest coefficient.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array, vstack

from poisonwatch.recovery import gaussian_process as kriging
from poisonwatch.recovery.estimate import Estimate
from poisonwatch.recovery.membership import draw_random_membership, draw_similar_membership


def make_problem(
    n: int, K: int, queries: int, design: str, alone: int
) -> tuple[csr_array, np.ndarray, kriging.Kernel]:
    """M (K + alone, n), Y (K + alone, queries) of a smooth part and heavy-tailed own parts, and the
    kernel.
    """
    draw = np.random.default_rng(0)
    middle = draw.standard_normal((200, 189))
    phi = middle[draw.integers(200, size=n)] + draw.standard_normal((n, 189))
    phi = (phi / np.linalg.norm(phi, axis=1, keepdims=True)).astype(np.float32)
    ids = [f"row-{i}" for i in range(n)]
    if design == "random" or n == K:
        M = draw_random_membership(ids, K, 1 if n == K else 3).matrix()
    else:
        M = draw_similar_membership(ids, K, 3, 0, phi).matrix()
    if alone:
        rows = draw.choice(n, alone, replace=False)
        singled = csr_array((np.ones(alone), (np.arange(alone), rows)), shape=(alone, n))
        M = csr_array(vstack([M, singled]))
    w = 1 + 3 * (phi @ draw.standard_normal((189, queries))) + draw.standard_t(4, (n, queries)) / 2
    return M, M @ w, kriging.Kernel(phi)


def timed(work: Callable[[], Estimate], dense_up_to: int) -> tuple[float, Estimate]:
    kriging.DENSE_UP_TO = dense_up_to
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=["4000/2000", "8000/4000", "4000/4000"])
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--design", choices=["alike", "random"], default="alike")
    parser.add_argument("--alone", type=int, default=0)
    options = parser.parse_args()
    by_subsets = kriging._Covariance.make_preconditioner

    def by_diagonal(V: kriging._Covariance) -> Callable[[np.ndarray], np.ndarray]:
        counts = np.asarray(abs(V.M).sum(axis=1)).ravel()
        return lambda x: x / counts[:, None]

    print("| n, K | solver | seconds | iterations | residual | w |\n|---|---|---|---|---|---|")
    for problem in options.problems:
        n, K = map(int, problem.split("/"))
        M, Y, kernel = make_problem(n, K, options.queries, options.design, options.alone)
        exact = None
        for name, preconditioner, dense_up_to in (
            ("factorised", by_subsets, 10**9),
            ("iterated, (OWN M M^T + noise I)^-1", by_subsets, 0),
            ("iterated, diagonal", by_diagonal, 0),
        ):
            kriging._Covariance.make_preconditioner = preconditioner
            seconds, found = timed(
                lambda: kriging.gp_regress(M, Y, kernel, max_iter=400),  # noqa: B023
                dense_up_to,
            )
            exact = found if exact is None else exact
            difference = np.abs(found.w - exact.w).max() / np.abs(exact.w).max()
            print(
                f"| {n:,}, {len(Y):,} | {name} | {seconds:.1f} | {found.n_iter} | "
                f"{found.worst:.0e} | {difference:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
