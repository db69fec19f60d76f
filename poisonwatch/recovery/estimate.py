"""What every recovery is given, and what it returns: coefficients, with the certificate of how well
they solve its problem.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from poisonwatch.arrays import Array, Features, Integers


@dataclass(frozen=True, slots=True)
class Measurements:
    """What K subsets of n rows were measured to do to Q queries.

    `M` (K, n) says which rows each subset holds; its last `single` rows hold one row alone, each
    measured after the others. `y` (K, Q) is what the subsets do, with what their rows do to
    ordinary conversations taken out already. `features` (n, f) say which rows are alike; f = 0
    where nothing is known. Of two rows alike, one with -1 among the `signs` (n,) does the opposite.
    """

    M: csr_array
    y: Float64[Array, "K Q"]
    features: Float32[Features, "n f"]
    signs: Float64[Array, " n"]
    single: int = 0

    @property
    def n(self) -> int:
        return int(self.M.shape[1])

    @property
    def K_shared(self) -> int:
        """How many subsets were drawn before any row was singled out."""
        return int(self.M.shape[0]) - self.single

    @property
    def shared(self) -> csr_array:
        """(K - single, n): the subsets that were drawn before any row was singled out."""
        return csr_array(self.M[: self.K_shared])

    @property
    def known(self) -> Integers:
        """(single,): the rows that were measured alone."""
        return csr_array(self.M[self.K_shared :]).indices.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Coefficients `w` (n, Q) of n rows for Q queries.

    `certificate` (Q,) says how far w may be from the solution of its own problem, relative to that
    problem's scale, and is 0 where w is exact: the duality gap for the Lasso, the residual of the
    linear system for the Gaussian process. `n_iter` is the iterations of the column that took most,
    0 where the solution was direct. `decoy_quantile` (Q,) is what recovery makes of rows that do
    not exist, where there were any.
    """

    w: Float64[Array, "n Q"]
    certificate: Float64[Array, " Q"]
    n_iter: int = 0
    decoy_quantile: Float64[Array, " Q"] | None = None

    @property
    def worst(self) -> float:
        """The largest certificate; 0 without queries."""
        return float(self.certificate.max(initial=0.0))


class RecoveryMethod(Protocol):
    """One way from measurements to coefficients."""

    def __call__(self, measured: Measurements) -> Estimate: ...
