"""What a fit leaves: operators, with what is needed to use them on any query, to take rows apart,
and to measure rows alone.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, vstack
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.frozen import FrozenModel, find_decoder_blocks
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Operators, Preconditioner, compute_gradients
from poisonwatch.stride.settings import Settings, resolve_settings
from poisonwatch.stride.similarity import compute_features


@dataclass(frozen=True, slots=True)
class SingleRows:
    """Single `rows` (m,), and what each of them does on its own: `a` (m, r, D)."""

    rows: RowIndices
    a: Tensor


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The losses of every step, before that step's update: `step` (steps,) from 1, the others
    (steps,) in nats a token.
    """

    step: NDArray[np.int64]
    total: Array
    fidelity: Array
    stability: Array
    linearity: Array


@dataclass(frozen=True, slots=True)
class Fitted:
    """Operators with what is needed to use them on any query.

    `M` (K, n) says which rows each operator holds; `features` (n, f) which rows are alike; `centre`
    (n,) what a row does to ordinary conversations on average, in `spread`s (n,) of it. `encoded`
    rows and `preconditioner` are there as long as rows can still be measured alone: not after
    loading, and not where operators were trained (then `curve` is).
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
    encoded: tuple[Encoded, ...] = ()
    preconditioner: Preconditioner | None = None
    curve: LearningCurve | None = None
    # (n, VIEWS, r - 1) that `features` were made of; kept where every row has a subset to
    # itself
    views: Features | None = None

    @property
    def subset_alone(self) -> RowIndices:
        """(n,): the subset that holds this row and no other; -1 where there is none."""
        single = np.flatnonzero(np.asarray(self.M.sum(axis=1)).ravel() == 1)
        subset = np.full(len(self.ids), -1)
        subset[csr_array(self.M[single]).indices] = single
        return subset

    @property
    def measured_alone(self) -> NDArray[np.bool_]:
        """(n,): rows that have a subset to themselves."""
        alone: NDArray[np.bool_] = self.subset_alone >= 0
        return alone

    def make_row_operators(self, rows: RowIndices, G: Tensor) -> Tensor:
        """What each of the rows (m,) does on its own, a_i = -eta P c_i G_i (m, r, D), from their
        gradients G (m, r, D).

        Raises ValueError where operators were trained, or loaded.
        """
        if self.preconditioner is None:
            raise ValueError("these operators cannot be added to: they were trained, or loaded")
        spread = torch.from_numpy(self.spread[rows]).to(G)
        return -self.operators.eta * self.preconditioner(G / spread[:, None, None])

    def with_row_gradients(self, rows: RowIndices, G: Tensor) -> "Fitted":
        """With one operator more for each of the rows, from their gradients G (m, r, D)."""
        return self.with_single_rows(SingleRows(rows, self.make_row_operators(rows, G)))

    @property
    def single_rows(self) -> SingleRows:
        """The rows that were singled out since the fit, in order."""
        return SingleRows(
            csr_array(self.M[self.settings.K :]).indices.astype(np.int64),
            self.operators.a[self.settings.K :],
        )

    def with_single_rows(self, singled: SingleRows) -> "Fitted":
        """With one operator more for each of some rows."""
        m = len(singled.rows)
        if not m:
            return self
        single = csr_array((np.ones(m), (np.arange(m), singled.rows)), shape=(m, len(self.ids)))
        operators = replace(self.operators, a=torch.cat([self.operators.a, singled.a]))
        return replace(self, operators=operators, M=csr_array(vstack([self.M, single])))

    def restore_gradients(self, rows: RowIndices) -> Tensor:
        """The gradients G (m, r, D) that operators of single rows were made of; 0 for a row that
        moves nothing. No pass over the rows.

        Raises ValueError where a row has no subset to itself, or operators were trained, or loaded.
        """
        subset = self.subset_alone[rows]
        if self.preconditioner is None or (subset < 0).any():
            raise ValueError(
                "these rows cannot be taken apart: they share subsets, or their operators were trained, or loaded"
            )
        a = self.operators.a[torch.from_numpy(subset).to(self.operators.a.device)]
        spread = torch.from_numpy(
            np.where(np.isfinite(self.spread[rows]), self.spread[rows], 0.0)
        ).to(a)
        return self.preconditioner.undo(a) * (spread / -self.operators.eta)[:, None, None]

    def restricted(
        self, rows: RowIndices, stride: StrideConfig, yardstick: tuple[Array, Array] | None = None
    ) -> "Fitted":
        """The fit of some of the rows (m,) alone, as `fit` would make it with this basis and these
        Fisher factors. No pass over the rows.

        `yardstick` is the rows' centre and spread (m,) among themselves
        (`yardstick.centre_and_spread`); left out, they stay as they are.
        Raises ValueError unless every row is a subset of its own (K = n), and where operators were
        trained, or loaded.
        """
        subset, settings = (
            self.subset_alone[rows],
            resolve_settings(
                stride, len(find_decoder_blocks(self.model.model)), self.model.width, len(rows)
            ),
        )
        if self.views is None or len(rows) != settings.K or (subset < 0).any():
            raise ValueError(
                "these rows cannot be taken apart: they share subsets, or their operators were trained, or loaded"
            )
        centre, spread = (self.centre[rows], self.spread[rows]) if yardstick is None else yardstick
        change = np.divide(
            self.spread[rows], spread, out=np.zeros(len(rows)), where=np.isfinite(self.spread[rows])
        )
        a = self.operators.a[torch.from_numpy(subset).to(self.operators.a.device)]
        a *= torch.from_numpy(change).to(a)[:, None, None]
        return replace(
            self,
            settings=settings,
            ids=tuple(self.ids[i] for i in rows),
            operators=replace(self.operators, a=a),
            M=csr_array(eye_array(len(rows))),
            features=compute_features(self.views[rows]),
            centre=centre,
            spread=spread,
            encoded=tuple(self.encoded[i] for i in rows),
            views=self.views[rows],
        )


def compute_row_operators(
    fitted: Fitted, rows: RowIndices, token_budget: int, progress: Progress = silent
) -> Tensor:
    """What each of the rows (m,) does on its own, (m, r, D): kept from the fit where a row has a
    subset to itself, else made anew.

    Raises ValueError where operators were trained, or loaded.
    """
    if fitted.preconditioner is None:
        raise ValueError(
            "these rows cannot be taken apart: their operators were trained, or loaded"
        )
    a = torch.zeros(len(rows), *fitted.operators.a.shape[1:], device=fitted.operators.a.device)
    subset = fitted.subset_alone[rows]
    kept, new = np.flatnonzero(subset >= 0), np.flatnonzero(subset < 0)
    a[torch.from_numpy(kept).to(a.device)] = fitted.operators.a[
        torch.from_numpy(subset[kept]).to(a.device)
    ]
    if len(new):
        encoded = [fitted.encoded[i] for i in rows[new]]
        G = compute_gradients(
            fitted.model, fitted.operators.basis, encoded, token_budget, "rows", progress
        )
        a[torch.from_numpy(new).to(a.device)] = fitted.make_row_operators(rows[new], G)
    return a
