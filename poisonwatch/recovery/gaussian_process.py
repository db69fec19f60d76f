"""Recovery of dense coefficients by Gaussian-process regression (kriging), with the rows'
similarity as what is known before measuring.

Influence on language models is dense: every row moves every query a little, and similar rows move
it alike. So, instead of few non-zero coefficients (`recovery.lasso`, the paper's choice), a smooth
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
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from poisonwatch.arrays import Array, Features
from poisonwatch.recovery.estimate import Estimate, Measurements

# Variance of a row's own part, in units of the smooth part's.
OWN_VARIANCE = 0.3

# Variance of a measurement, in units of what a subset's effect varies by: rounds of subsets may
# contradict each other.
NOISE_VARIANCE = 1e-4

# Subsets up to which V is factorised (72 MB); above, it is solved by conjugate gradients.
DENSE_UP_TO = 3000

# Columns of V that are formed at a time: each takes n floats on its way.
COLUMNS_AT_ONCE = 256

KERNEL_WIDTH = 0.4

# Entries of the kernel held at a time.
TILE_ENTRIES = 1 << 22


@dataclass(frozen=True, slots=True)
class SmoothRecovery:
    """Similar rows act alike: the Gaussian process, on all subsets at once. `tolerance` and
    `max_iter` count where there are too many subsets to factorise.
    """

    tolerance: float = 1e-6
    max_iter: int = 3000

    def __call__(self, measured: Measurements) -> Estimate:
        kernel, signs = Kernel(measured.features), measured.signs
        # Smooth is what rows do that are raised: y = (M S) (S w), with S the diagonal of signs.
        M = csr_array(measured.M.multiply(signs[None]))
        found = gp_regress(M, measured.y, kernel, tolerance=self.tolerance, max_iter=self.max_iter)
        return replace(found, w=signs[:, None] * found.w)


@dataclass(frozen=True, slots=True)
class Kernel:
    """kernel(i, j) = exp((<phi_i, phi_j> - 1) / KERNEL_WIDTH), (n, n), of the rows' `features` phi
    (n, f), applied tile by tile: never more than some 50 MiB of it exist.

    Without features (f = 0) no row is like another: the kernel is the identity.
    """

    features: Features

    @property
    def n(self) -> int:
        return len(self.features)

    def __matmul__(self, v: Float64[Array, "n q"]) -> Float64[Array, "n q"]:
        """kernel @ v for v (n, q)."""
        if not self.features.size:
            return v
        return np.concatenate([tile.astype(np.float64) @ v for tile in self._tiles()])

    def _tiles(self) -> Iterator[Features]:
        rows = max(1, TILE_ENTRIES // self.n)
        for start in range(0, self.n, rows):
            tile = self.features[start : start + rows] @ self.features.T
            yield cast(Features, np.exp((tile - 1.0) / KERNEL_WIDTH))


class _Covariance:
    """V = M (kernel + OWN I) M^T + noise I (K, K), applied without being formed."""

    def __init__(self, M: csr_array, kernel: Kernel) -> None:
        self.M = M
        self.kernel = kernel
        # What mu adds to each subset: M 1.
        self.sizes = np.asarray(M.sum(axis=1), dtype=np.float64).ravel()
        # The diagonal of V, if no two rows were alike.
        counts = np.asarray(abs(M).sum(axis=1), dtype=np.float64).ravel()
        self.diagonal: Array = counts * (1.0 + OWN_VARIANCE)
        self.noise = NOISE_VARIANCE * float(self.diagonal.mean())

    def apply(self, x: Array) -> Array:
        """V x for x (K, q)."""
        spread: Array = self.M.T @ x
        product: Array = self.M @ (self.kernel @ spread + OWN_VARIANCE * spread) + self.noise * x
        return product

    def form(self) -> Array:
        """V as a matrix (K, K)."""
        K = len(self.sizes)
        blocks = []
        for start in range(0, K, COLUMNS_AT_ONCE):
            unit_columns = np.eye(K, COLUMNS_AT_ONCE, -start)[:, : K - start]
            blocks.append(self.apply(unit_columns))
        return np.hstack(blocks)


def gp_regress(
    M: csr_array,
    Y: Float64[Array, "K Q"],
    kernel: Kernel,
    *,
    tolerance: float = 1e-6,
    max_iter: int = 3000,
) -> Estimate:
    """Predict what every row does, mu + f^ (n, Q), from what the subsets do: Y (K, Q).

    The certificate is ||V x - b|| / ||b|| of the linear systems behind it.
    """
    V = _Covariance(M, kernel)
    # One more column than queries: M 1, whose solution gives mu.
    right = np.column_stack([V.sizes, Y])
    n_iter = 0
    if M.shape[0] <= DENSE_UP_TO:
        x = cho_solve(cho_factor(V.form(), lower=True), right)
    else:
        x, n_iter = solve_conjugate_gradients(
            V.apply, right, V.diagonal, tolerance=tolerance, max_iter=max_iter
        )
    lengths = np.linalg.norm(right, axis=0)
    residual = np.linalg.norm(V.apply(x) - right, axis=0) / np.where(lengths > 0, lengths, 1.0)
    mu = right[:, 0] @ x[:, 1:] / max(float(right[:, 0] @ x[:, 0]), np.finfo(float).tiny)
    spread = M.T @ (x[:, 1:] - np.outer(x[:, 0], mu))
    return Estimate(mu + kernel @ spread, residual[1:], n_iter)


def solve_conjugate_gradients(
    apply: Callable[[Array], Array],
    right: Float64[Array, "K q"],
    diagonal: Float64[Array, " K"],
    *,
    tolerance: float,
    max_iter: int,
) -> tuple[Float64[Array, "K q"], int]:
    """Solve V x = right (K, q), each column to its own relative `tolerance`, preconditioned by a
    `diagonal` (K,); returns x and the iterations.

    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952); all columns share the products with
    V.
    """
    x = np.zeros_like(right)
    r = right.copy()
    z = r / diagonal[:, None]
    p = z.copy()
    rz = (r * z).sum(axis=0)
    goal = tolerance * np.linalg.norm(right, axis=0)
    for n_iter in range(max_iter):
        if bool((np.linalg.norm(r, axis=0) <= goal).all()):
            return x, n_iter
        Vp = apply(p)
        curvature = (p * Vp).sum(axis=0)
        # A column that has arrived has no direction left: its step is 0, not 0 / 0.
        step = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        x += step * p
        r -= step * Vp
        z = r / diagonal[:, None]
        rz_next = (r * z).sum(axis=0)
        p = z + np.divide(rz_next, rz, out=np.zeros_like(rz), where=rz > 0) * p
        rz = rz_next
    return x, max_iter
