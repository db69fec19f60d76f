"""Recovery of dense coefficients: kriging, with the rows' likeness as what is known before
measuring.

Influence on language models is dense: every row moves every query a little, and like rows move it
alike. So, instead of few non-zero coefficients (`recovery.lasso`, the paper's choice), a smooth
function of the rows plus each row's own part is assumed:

    w = mu + f + e ,   f ~ N(0, s^2 kernel) ,   e ~ N(0, s^2 OWN I) ,   y = M w
    f^ = kernel M^T V^-1 (y - mu M 1) ,   V = M (kernel + OWN I) M^T + noise I ,   mu by generalised
    least squares

(the best linear unbiased prediction of f: Cressie, Statistics for Spatial Data, 1993, section 3.4).
mu + f^ is what a row does together with its like; its own part is left out as noise. Subsets of
several rows and of a single one are treated alike: a row that is also measured alone sharpens all
others that are like it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from poisonwatch.arrays import Array, Features

OWN_VARIANCE = 0.3  # variance of a row's own part, in units of the smooth part's
# variance of a measurement, in units of what a subset's effect varies by: rounds of subsets may
# contradict each other
NOISE_VARIANCE = 1e-4
DENSE_UP_TO = (
    3000  # subsets; V is factorised up to here (72 MB), and solved by conjugate gradients above
)
COLUMNS_AT_ONCE = 256  # of V that are formed at a time: each takes n floats on its way


@dataclass(frozen=True, slots=True)
class Kriged:
    """`w` (n, Q): mu + f^ for every row; `residual` (Q,): ||V x - b|| / ||b|| of the linear systems
    behind it.
    """

    w: Array
    residual: Array


@dataclass(frozen=True, slots=True)
class Kernel:
    """kernel (n, n) of the rows' `features` (n, f), applied tile by tile: never more than some 50
    MiB of it exist.
    """

    features: Features

    @property
    def n(self) -> int:
        return len(self.features)

    def __matmul__(self, v: Array) -> Array:
        """kernel @ v for v (n, q)."""
        if not self.features.size:
            return v
        return np.concatenate([tile.astype(np.float64) @ v for tile in self._tiles()])

    def _tiles(self) -> Iterator[Features]:
        rows = max(1, TILE_ENTRIES // self.n)
        for start in range(0, self.n, rows):
            tile = self.features[start : start + rows] @ self.features.T
            yield cast(Features, np.exp((tile - 1.0) / KERNEL_WIDTH))


def gp_regress(
    M: csr_array, Y: Array, kernel: Kernel, tolerance: float = 1e-6, max_iter: int = 3000
) -> Kriged:
    """Predict what every row does, from what the subsets do: Y (K, Q)."""
    K = M.shape[0]
    sizes = np.asarray(M.sum(axis=1), dtype=np.float64).ravel()
    diagonal: Array = sizes * (1.0 + OWN_VARIANCE)  # of V, if no two rows were alike
    noise = NOISE_VARIANCE * float(diagonal.mean())

    def apply_V(x: Array) -> Array:
        spread: Array = M.T @ x
        product: Array = M @ (kernel @ spread + OWN_VARIANCE * spread) + noise * x
        return product

    right = np.column_stack([sizes, Y])
    if K <= DENSE_UP_TO:
        V = np.hstack(
            [
                apply_V(np.eye(K, COLUMNS_AT_ONCE, -start)[:, : K - start])
                for start in range(0, K, COLUMNS_AT_ONCE)
            ]
        )
        x = cho_solve(cho_factor(V, lower=True), right)
    else:
        x = solve_conjugate_gradients(apply_V, right, diagonal, tolerance, max_iter)
    lengths = np.linalg.norm(right, axis=0)
    residual = np.linalg.norm(apply_V(x) - right, axis=0) / np.where(lengths > 0, lengths, 1.0)
    mu = right[:, 0] @ x[:, 1:] / max(float(right[:, 0] @ x[:, 0]), np.finfo(float).tiny)
    spread = M.T @ (x[:, 1:] - np.outer(x[:, 0], mu))
    return Kriged(mu + kernel @ spread, residual[1:])


def solve_conjugate_gradients(
    apply: Callable[[Array], Array], right: Array, diagonal: Array, tolerance: float, max_iter: int
) -> Array:
    """Solve V x = right (K, q), each column to its own relative `tolerance`, preconditioned by a
    `diagonal` (K,).

    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952); all columns share the products with
    V.
    """
    x = np.zeros_like(right)
    r = right.copy()
    z = r / diagonal[:, None]
    p = z.copy()
    rz = (r * z).sum(axis=0)
    goal = tolerance * np.linalg.norm(right, axis=0)
    for _ in range(max_iter):
        if bool((np.linalg.norm(r, axis=0) <= goal).all()):
            break
        Vp = apply(p)
        curvature = (p * Vp).sum(axis=0)
        step = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        x += step * p
        r -= step * Vp
        z = r / diagonal[:, None]
        rz_next = (r * z).sum(axis=0)
        p = z + np.divide(rz_next, rz, out=np.zeros_like(rz), where=rz > 0) * p
        rz = rz_next
    return x


KERNEL_WIDTH = 0.4

TILE_ENTRIES = 1 << 22  # entries of the kernel held at a time
