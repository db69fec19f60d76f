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
from typing import TypeVar, cast

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csc_array, csr_array, eye_array
from scipy.sparse.linalg import splu

from poisonwatch.arrays import Array, Features
from poisonwatch.recovery.estimate import Estimate, Measurements

# Variance of a row's own part, in units of the smooth part's.
OWN_VARIANCE = 0.3

# Variance of a measurement, in units of what a subset's effect varies by: rounds of subsets may
# contradict each other.
NOISE_VARIANCE = 1e-4

# Subsets up to which V is formed and factorised, in 512 MB: in a fifth of the time that conjugate
# gradients take. Above, these solve it.
DENSE_UP_TO = 8000

# How often a solution in single precision is corrected by its residual in double precision.
CORRECTIONS = 3

KERNEL_WIDTH = 0.4

# Entries of the kernel held at a time.
TILE_ENTRIES = 1 << 22

# Numbers of all rows' coefficients that are solved for at a time (64 MB): some six arrays as large
# are held meanwhile, but for each part of the queries the kernel is computed anew.
COLUMN_ENTRIES = 1 << 23

AnyFloat = TypeVar("AnyFloat", np.float32, np.float64)

# right (K, q), the goal (q,) for ||V x - right||, and the most iterations, to x (K, q) and the
# iterations that it took.
Solver = Callable[[Array, Array, int], tuple[Array, int]]


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
        # In place: the coefficients of many queries are large.
        return replace(found, w=np.multiply(found.w, signs[:, None], out=found.w))


@dataclass(frozen=True, slots=True)
class Kernel:
    """kernel(i, j) = exp((<phi_i, phi_j> - 1) / KERNEL_WIDTH), (n, n), of the rows' `features` phi
    (n, f), applied strip by strip: never more than some 50 MiB of it exist.

    Without features (f = 0) no row is like another: the kernel is the identity.
    """

    features: Features

    @property
    def n(self) -> int:
        return len(self.features)

    def __matmul__(self, v: NDArray[AnyFloat]) -> NDArray[AnyFloat]:
        """kernel @ v for v (n, q), summed in the precision of v."""
        if not self.features.size:
            return v
        product = np.zeros_like(v)
        for start, stop, strip in self.strips():
            tile = strip.astype(v.dtype, copy=False)
            product[start:stop] += tile @ v[start:]
            # What lies below the diagonal is the same as what lies above.
            product[stop:] += tile[:, stop - start :].T @ v[start:stop]
        return product

    def strips(self) -> Iterator[tuple[int, int, Features]]:
        """The kernel's rows from `start` to `stop`, from the diagonal on: (stop - start, n - start)
        each.
        """
        rows = max(1, TILE_ENTRIES // self.n)
        # Both sides alike, so that the kernel is symmetric to the last digit.
        scaled = self.features * np.float32(KERNEL_WIDTH**-0.5)
        for start in range(0, self.n, rows):
            stop = min(start + rows, self.n)
            strip = scaled[start:stop] @ scaled[start:].T
            # In place: every other array would take as long as the exponential itself.
            np.subtract(strip, np.float32(1.0 / KERNEL_WIDTH), out=strip)
            yield start, stop, cast(Features, np.exp(strip, out=strip))


class _Covariance:
    """V = M (kernel + OWN I) M^T + noise I (K, K), applied without being formed."""

    def __init__(self, M: csr_array, kernel: Kernel) -> None:
        self.M = M
        self.kernel = kernel
        # What mu adds to each subset: M 1.
        self.sizes = np.asarray(M.sum(axis=1), dtype=np.float64).ravel()
        # The mean diagonal of V, if no two rows were alike.
        counts = np.asarray(abs(M).sum(axis=1), dtype=np.float64)
        self.noise = NOISE_VARIANCE * float(counts.mean()) * (1.0 + OWN_VARIANCE)
        # V without the kernel: what the subsets have in common is few rows.
        self.apart = csc_array(OWN_VARIANCE * (M @ M.T) + self.noise * eye_array(len(self.sizes)))

    def apply(self, x: Array, smooth: NDArray[AnyFloat]) -> Array:
        """V x for x (K, q), with `smooth` = kernel M^T x (n, q)."""
        product: Array = self.M @ smooth.astype(np.float64, copy=False) + self.apart @ x
        return product

    def factorise(self) -> Solver:
        """Solve by the Cholesky factor of V as a matrix."""
        # Transposed, as LAPACK wants it: V is symmetric, and nothing is copied.
        factor = cho_factor(self.form().T, lower=True, overwrite_a=True, check_finite=False)
        return lambda right, *_: (cho_solve(factor, right, check_finite=False), 0)

    def iterate(self) -> Solver:
        """Solve by conjugate gradients."""
        precondition = self.make_preconditioner()

        def apply_in_single(x: Array) -> Array:
            return self.apply(x, self.kernel @ (self.M.T @ x).astype(np.float32))

        def solve(right: Array, goal: Array, max_iter: int) -> tuple[Array, int]:
            # Rounding has the other half.
            return solve_conjugate_gradients(
                apply_in_single, right, precondition, goal=0.5 * goal, max_iter=max_iter
            )

        return solve

    def form(self) -> Array:
        """V as a matrix (K, K), in one pass over the kernel."""
        if not self.kernel.features.size:
            dense: Array = (self.M @ self.M.T + self.apart).toarray()
            return dense
        V = self.apart.toarray() * 0.5
        columns = csr_array(self.M.T)
        for start, stop, strip in self.kernel.strips():
            # The half above the diagonal is summed, and its transpose added in the end.
            strip[:, : stop - start] *= 0.5
            seen = columns[start:].T @ np.ascontiguousarray(strip.T, dtype=np.float64)
            members = csr_array(columns[start:stop].T)
            touched = np.flatnonzero(np.diff(members.indptr))
            V[touched] += members[touched] @ seen.T
        return _add_transpose(V)

    def make_preconditioner(self) -> Callable[[Array], Array]:
        """x -> (OWN M M^T + noise I)^-1 x, factorised once.

        What V is beyond it is smooth, of few large eigenvalues, which conjugate gradients find
        first. Where no two subsets share a row it is a diagonal.
        """
        diagonal = self.apart.diagonal()
        if self.apart.nnz == len(diagonal):
            return lambda x: x / diagonal[:, None]
        # Symmetric and positive definite: neither pivots nor another order for rows are needed.
        factors = splu(
            self.apart,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return factors.solve


def _add_transpose(half: Float64[Array, "K K"]) -> Float64[Array, "K K"]:
    """half + half^T, in place."""
    K = len(half)
    for start in range(0, K, 512):
        stop = min(start + 512, K)
        half[start:stop, start:] += half[start:, start:stop].T
        half[start:, start:stop] = half[start:stop, start:].T
    return half


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
    n, Q = M.shape[1], Y.shape[1]
    V = _Covariance(M, kernel)
    solve = V.factorise() if M.shape[0] <= DENSE_UP_TO else V.iterate()
    w, certificate, most = np.empty((n, Q)), np.empty(Q), 0
    width = max(1, COLUMN_ENTRIES // n)
    for first in range(0, Q, width):
        q = slice(first, first + width)
        w[:, q], certificate[q], n_iter = _predict(V, solve, Y[:, q], tolerance, max_iter)
        most = max(most, n_iter)
    return Estimate(w, certificate, most)


def _predict(
    V: _Covariance, solve: Solver, Y: Array, tolerance: float, max_iter: int
) -> tuple[Array, Array, int]:
    """mu + f^ (n, q) for Y (K, q), with certificates (q,) and iterations."""
    # One more column than queries: M 1, whose solution gives mu.
    right = np.column_stack([V.sizes, Y])
    lengths = np.linalg.norm(right, axis=0)
    x, residual, n_iter = np.zeros_like(right), right, 0
    for _ in range(1 + CORRECTIONS):
        step, iterations = solve(residual, tolerance * lengths, max_iter - n_iter)
        x, n_iter = x + step, n_iter + iterations
        # In double precision, and the last word on x, however it was found.
        smooth = V.kernel @ (V.M.T @ x)
        residual = right - V.apply(x, smooth)
        certificate = np.linalg.norm(residual, axis=0) / np.where(lengths > 0, lengths, 1.0)
        if n_iter >= max_iter or bool((certificate <= tolerance).all()):
            break
    mu = right[:, 0] @ x[:, 1:] / max(float(right[:, 0] @ x[:, 0]), np.finfo(float).tiny)
    # kernel M^T (x_q - mu_q x_0), of products that are known already.
    return mu + smooth[:, 1:] - np.outer(smooth[:, 0], mu), certificate[1:], n_iter


def solve_conjugate_gradients(
    apply: Callable[[Array], Array],
    right: Float64[Array, "K q"],
    precondition: Callable[[Array], Array],
    *,
    goal: Float64[Array, " q"],
    max_iter: int,
) -> tuple[Float64[Array, "K q"], int]:
    """Solve V x = right (K, q) until ||V x - right|| is at most `goal` (q,) in each column, as far
    as `apply` is exact; returns x and the iterations.

    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952); all columns share the products with
    V.
    """
    x = np.zeros_like(right)
    r = right.copy()
    z = precondition(r)
    p = z.copy()
    rz = (r * z).sum(axis=0)
    for n_iter in range(max_iter):
        if bool((np.linalg.norm(r, axis=0) <= goal).all()):
            return x, n_iter
        Vp = apply(p)
        curvature = (p * Vp).sum(axis=0)
        # A column that has arrived has no direction left: its step is 0, not 0 / 0.
        step = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        x += step * p
        r -= step * Vp
        z = precondition(r)
        rz_next = (r * z).sum(axis=0)
        p = z + np.divide(rz_next, rz, out=np.zeros_like(rz), where=rz > 0) * p
        rz = rz_next
    return x, max_iter
