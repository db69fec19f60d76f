"""From measurements to coefficients, in adaptive rounds.

The rows that score highest are measured alone, as subsets of one row, which is exact, and all is
recovered anew from all subsets together; rows that come up now are measured next, until no new ones
do. Rounds need a fit to which single rows can be added: operators that were trained are recovered
once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.config import StrideConfig
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.estimate import Estimate, Measurements, RecoveryMethod
from poisonwatch.recovery.gaussian_process import SmoothRecovery
from poisonwatch.recovery.lasso import SparseRecovery
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import FitOfRows, FittedOperators, NaturalGradientFit, SingleRows
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.measured import select_suspects
from poisonwatch.stride.measurement import measure, multiply_gradients
from poisonwatch.stride.operators import unit_norm
from poisonwatch.stride.queries import PreparedQueries, prepare_queries
from poisonwatch.stride.streamed import StreamedFit

AnyFit = TypeVar("AnyFit", bound=FittedOperators)
RowsFit = TypeVar("RowsFit", FitOfRows, StreamedFit)

# Rows (m,) to their gradients (m, r, D).
RowGradients = Callable[[RowIndices], Tensor]

RECOVERIES: dict[str, Callable[[StrideConfig], RecoveryMethod]] = {
    "kriging": lambda _: SmoothRecovery(),
    "gp": lambda _: SmoothRecovery(),
    "lasso": lambda stride: SparseRecovery(stride.lasso),
}


def estimate_coefficients(
    fitted: FittedOperators, y: Float64[Array, "K Q"], stride: StrideConfig
) -> Estimate:
    """Recover w (n, Q), beyond what rows do to ordinary conversations, from y (K, Q)."""
    # What is known exactly, the background, is taken out of y first: recovery need not find it
    # again, and cannot shrink it.
    recover = RECOVERIES[stride.recovery](stride)
    return recover(
        Measurements(
            M=fitted.M,
            y=y - (fitted.M @ fitted.centre)[:, None],
            features=fitted.features,
            signs=fitted.signs,
            single=fitted.M.shape[0] - fitted.settings.K,
        )
    )


def recover_influence(
    fitted: RowsFit,
    sentinels: Sequence[Sentinel],
    stride: StrideConfig,
    progress: Progress = silent,
) -> tuple[Influence, RowsFit]:
    """Measure the sentinels on every operator and recover the rows' coefficients; also returns the
    operators with those of the suspects.

    Rows that a streamed pass measured alone are there already. Raises ValueError where that was on
    other sentinels, and no gradients were kept.
    """
    if isinstance(fitted, StreamedFit):
        asked = fitted.ask(sentinels, stride, progress)
        return asked.recover(progress), asked
    queries, prepared = prepare_queries(fitted, sentinels, stride, progress)

    def compute_row_gradients(rows: RowIndices) -> Tensor:
        return fitted.compute_row_gradients(rows, stride.token_budget, "suspects", progress)

    return recover_in_rounds(
        fitted, queries, prepared, compute_row_gradients, stride, progress=progress
    )


class _Gradients:
    """Rows' gradients, each made once."""

    def __init__(self, make: RowGradients) -> None:
        self._make = make
        self._seen: dict[int, Tensor] = {}

    def get(self, rows: RowIndices) -> Tensor:
        """G (m, r, D) of the rows (m,)."""
        new = np.array([i for i in rows.tolist() if i not in self._seen], dtype=np.int64)
        if len(new):
            self._seen |= dict(zip(new.tolist(), self._make(new), strict=True))
        return torch.stack([self._seen[i] for i in rows.tolist()])


def recover_in_rounds(
    fitted: AnyFit,
    queries: tuple[Query, ...],
    prepared: PreparedQueries,
    row_gradients: RowGradients,
    stride: StrideConfig,
    *,
    progress: Progress = silent,
) -> tuple[Influence, AnyFit]:
    """Recover the rows' coefficients for queries, in adaptive rounds; then measure the suspects on
    each other. Also returns the operators with those of the suspects.
    """
    gradients, shortlist = _Gradients(row_gradients), fitted.settings.shortlist
    y = measure(fitted, fitted.operators, prepared, stride, progress)
    first = found = estimate_coefficients(fitted, y, stride)
    worst = found.worst
    suspects = select_suspects(queries, found.w, shortlist)
    for _ in range(stride.rounds):
        single = _measure_alone(fitted, suspects, gradients)
        if single is None:
            break
        fitted = fitted.with_single_rows(single)
        # Only what is new is measured: y of the other subsets stands.
        added = replace(fitted.operators, a=fitted.operators.a[-len(single.rows) :])
        y = np.concatenate([y, measure(fitted, added, prepared, stride, progress)])
        found = estimate_coefficients(fitted, y, stride)
        worst = max(worst, found.worst)
        suspects = select_suspects(queries, found.w, shortlist)
    mutual = _estimate_mutual_influence(fitted, gradients.get(suspects), stride)
    influence = Influence(
        queries=queries,
        w=found.w,
        first_pass=first.w,
        suspects=suspects,
        mutual_influence=mutual.w[suspects],
        features=fitted.features,
        neighbours=find_neighbours(fitted.features),
        certificate=max(worst, mutual.worst),
        measured_alone=int(fitted.measured_alone.sum()),
        decoy_quantile=found.decoy_quantile,
    )
    return influence, fitted


def _measure_alone(
    fitted: FittedOperators, suspects: RowIndices, gradients: _Gradients
) -> SingleRows | None:
    """What those suspects do alone that were not measured alone yet, as far as the memory budget
    has room; None where there are no more, or none can be added to the fit.
    """
    if not isinstance(fitted, NaturalGradientFit):
        return None
    # Suspects come highest first: where there is no room for all, the best are measured.
    room = max(0, fitted.settings.K_most - len(fitted.operators.a))
    new = suspects[~fitted.measured_alone[suspects]][:room]
    if not len(new):
        return None
    return SingleRows(new, fitted.make_row_operators(new, gradients.get(new)))


def _estimate_mutual_influence(
    fitted: FittedOperators, G: Tensor, stride: StrideConfig
) -> Estimate:
    """How strongly every row (n) pushes the suspects, whose gradients are G (m, r, D): to first
    order, whatever the measurement.
    """
    # In unit norm, as queries are: a long gradient is no stronger tie.
    y = multiply_gradients(fitted.operators, unit_norm(G)) / fitted.operators.eta
    return estimate_coefficients(fitted, y, stride)
