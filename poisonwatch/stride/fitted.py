"""What a fit leaves: operators, with what is needed to use them on any query.

What more can be done with them depends on how they were made, and is a type:

    FittedOperators           any: also those that were loaded
      FitOfRows               the rows are still at hand: their gradients can be made again
        TrainedFit            trained, with a learning curve
        NaturalGradientFit    in closed form: rows can be measured alone

Where every row is a subset of its own there are no operators to hold: `streamed`.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from torch import Tensor

from poisonwatch.arrays import Array, Features, Integers, RowIndices
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.fault import FaultyRow
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Basis, Operators, Preconditioner, compute_gradients
from poisonwatch.stride.settings import Settings


@dataclass(frozen=True, slots=True)
class SingleRows:
    """Single `rows` (m,), and what each of them does on its own: `a` (m, r, D)."""

    rows: RowIndices
    a: Tensor

    def make_matrix(self, n: int) -> csr_array:
        """(m, n): a subset for each, which holds it alone."""
        m = len(self.rows)
        return csr_array((np.ones(m), (np.arange(m), self.rows)), shape=(m, n))


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The losses of every step, before that step's update: `step` (steps,) from 1, the others
    (steps,) in nats a token.
    """

    step: Integers
    total: Array
    fidelity: Array
    stability: Array
    linearity: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedOperators:
    """Operators with what is needed to use them on any query.

    `M` (K, n) says which rows each operator holds; `features` (n, f) which rows are alike; `centre`
    (n,) what a row does to ordinary conversations on average, in units of its standard deviation
    `spread` (n,) over these. `signs` (n,) are 1, or -1 where training lowers a row's answer.
    """

    settings: Settings
    model: FrozenModel
    encoder: ChatEncoder
    ids: tuple[str, ...]
    operators: Operators
    M: csr_array
    features: Features
    centre: Array
    spread: Array
    signs: Array

    @property
    def basis(self) -> Basis:
        return self.operators.basis

    @property
    def eta(self) -> float:
        return self.operators.eta

    @property
    def shift(self) -> float:
        return self.operators.shift

    @property
    def subset_alone(self) -> RowIndices:
        """(n,): the subset that holds this row and no other; -1 where there is none."""
        single = np.flatnonzero(np.asarray(self.M.sum(axis=1)).ravel() == 1)
        # Where a row stands alone twice the later subset counts: both hold the same operator.
        subset = np.full(len(self.ids), -1)
        subset[csr_array(self.M[single]).indices] = single
        return subset

    @property
    def measured_alone(self) -> NDArray[np.bool_]:
        """(n,): rows that have a subset to themselves."""
        alone: NDArray[np.bool_] = self.subset_alone >= 0
        return alone

    @property
    def single_rows(self) -> SingleRows:
        """The rows that were singled out since the fit, in order."""
        K = self.settings.K
        rows = csr_array(self.M[K:]).indices.astype(np.int64)
        return SingleRows(rows, self.operators.a[K:])

    def with_single_rows(self, single: SingleRows) -> Self:
        """With one operator more for each of some rows."""
        # Nothing is copied for nothing: a is the largest array of an audit.
        if not len(single.rows):
            return self
        a = torch.cat([self.operators.a, single.a])
        M = csr_array(vstack([self.M, single.make_matrix(len(self.ids))]))
        return replace(self, operators=replace(self.operators, a=a), M=M)

    def get_row_operators(self, subset: RowIndices) -> Tensor:
        """A copy of the operators (m, r, D) of the subsets (m,)."""
        # Indexing by a tensor copies: callers change what they get in place.
        return self.operators.a[torch.from_numpy(subset).to(self.operators.a.device)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOfRows(FittedOperators):
    """Operators with the rows they were fitted to; rows that were left out, for they cannot be
    measured, are `faulty`.
    """

    encoded: tuple[Encoded, ...]
    faulty: tuple[FaultyRow, ...] = ()

    def compute_row_gradients(
        self, rows: RowIndices, token_budget: int, label: str, progress: Progress = silent
    ) -> Float[Tensor, "m r D"]:
        """G (m, r, D) of the rows (m,), one backward pass each."""
        encoded = [self.encoded[i] for i in rows]
        basis = self.operators.basis
        return compute_gradients(self.model, basis, encoded, token_budget, label, progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFit(FitOfRows):
    """Operators that were trained. What one row alone would have trained is not known: none is
    added.
    """

    curve: LearningCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalGradientFit(FitOfRows):
    """Operators in closed form, to which those of single rows can be added."""

    preconditioner: Preconditioner

    def make_row_operators(
        self, rows: Int64[RowIndices, " m"], G: Float[Tensor, "m r D"]
    ) -> Float[Tensor, "m r D"]:
        """What each of the rows (m,) does on its own, a_i = -eta P c_i G_i (m, r, D), from their
        gradients G (m, r, D).
        """
        spread = torch.from_numpy(self.spread[rows]).to(G)
        return -self.operators.eta * self.preconditioner(G / spread[:, None, None])

    def with_row_gradients(self, rows: Int64[RowIndices, " m"], G: Float[Tensor, "m r D"]) -> Self:
        """With one operator more for each of the rows, from their gradients G (m, r, D)."""
        return self.with_single_rows(SingleRows(rows, self.make_row_operators(rows, G)))

    def compute_row_operators(
        self, rows: Int64[RowIndices, " m"], token_budget: int, progress: Progress = silent
    ) -> Float[Tensor, "m r D"]:
        """What each of the rows (m,) does on its own, (m, r, D): kept from the fit where a row has
        a subset to itself, else made anew.
        """
        device = self.operators.a.device
        a = torch.zeros(len(rows), *self.operators.a.shape[1:], device=device)
        subset = self.subset_alone[rows]
        kept, new = np.flatnonzero(subset >= 0), np.flatnonzero(subset < 0)
        a[torch.from_numpy(kept).to(device)] = self.get_row_operators(subset[kept])
        # The basis and the factors are the fit's, so that new operators stand beside old ones.
        if len(new):
            G = self.compute_row_gradients(rows[new], token_budget, "rows", progress)
            a[torch.from_numpy(new).to(device)] = self.make_row_operators(rows[new], G)
        return a
