"""From what every row does alone to what it does together with its like.

Rows were each measured alone (`row_pass`), so that nothing has to be told apart; what is left is
noise of single rows, and smoothing over each row's nearest takes it out. Then the rows that score
highest are measured on each other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.sparse import csr_array
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride.influence import Influence, LayerInfluence, Query
from poisonwatch.stride.operators import Preconditioner, unit_norm
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.scoring import pool_scores

# Rows (m,) to their gradients (m, r, D).
RowGradients = Callable[[RowIndices], Tensor]

# Queries whose effects are smoothed at a time.
QUERIES_AT_ONCE = 8

# Suspects whose gradients are multiplied at a time.
SUSPECTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class LayerEffects:
    """What n rows do to the queries at one layer, `effects` (n, Q), and to ordinary conversations
    on average, `centre` (n,), in background standard deviations of that layer; `features` (n, f)
    say which rows are alike there.
    """

    effects: Float32[Features, "n Q"]
    centre: Float64[Array, " n"]
    features: Float32[Features, "n f"]

    def recover(self, signs: Float64[Array, " n"]) -> LayerInfluence:
        """The rows' coefficients; `signs` (n,) are -1 where training lowers a row's answer."""
        neighbours = find_neighbours(self.features)
        smoother = compute_smoother(self.features, neighbours, signs)
        return LayerInfluence(self.smooth(smoother), neighbours)

    def smooth(self, smoother: csr_array) -> Float64[Array, "n Q"]:
        """The rows' coefficients (n, Q), some queries at a time: of a million rows an array is half
        a gigabyte.
        """
        n, Q = self.effects.shape
        w = np.empty((n, Q))
        for start in range(0, Q, QUERIES_AT_ONCE):
            some = slice(start, start + QUERIES_AT_ONCE)
            # The background is known exactly: it is taken out first, or smoothing would blur it.
            w[:, some] = smoother @ (self.effects[:, some] - self.centre[:, None])
        return w


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRows:
    """What n rows do, each alone, to the `queries`: `effects` (n, Q).

    Like `centre` (n,), what a row does to ordinary conversations on average, they count background
    standard deviations, `spread` (n,). `signs` (n,) are 1, or -1 where training lowers a row's
    answer; `features` (n, f) say which rows are alike.
    """

    queries: tuple[Query, ...]
    effects: Float32[Features, "n Q"]
    centre: Float64[Array, " n"]
    spread: Float64[Array, " n"]
    signs: Float64[Array, " n"]
    features: Float32[Features, "n f"]

    @property
    def at_layer(self) -> LayerEffects:
        """The same, as far as it differs from layer to layer."""
        return LayerEffects(self.effects, self.centre, self.features)


def smooth_and_cross(
    measured: MeasuredRows,
    gradients: RowGradients,
    preconditioner: Preconditioner,
    shortlist: int,
    *,
    further: Iterable[LayerEffects] = (),
    leaning: Float64[Array, "n P"] | None = None,
    wording: Float64[Array, "n P"] | None = None,
) -> Influence:
    """The rows' coefficients, and what the `shortlist` rows that score highest do to each other.
    What the `further` layers hold is asked for one at a time.
    """
    first = measured.at_layer.recover(measured.signs)
    w = first.w
    suspects = select_suspects(measured.queries, w, shortlist)
    mutual = measure_mutual_influence(measured, suspects, gradients(suspects), preconditioner)
    return Influence(
        queries=measured.queries,
        w=w,
        first_pass=w,
        suspects=suspects,
        mutual_influence=mutual,
        features=measured.features,
        neighbours=first.neighbours,
        certificate=0.0,
        measured_alone=len(w),
        leaning=leaning,
        wording=wording,
        further=tuple(layer.recover(measured.signs) for layer in further),
    )


def select_suspects(
    queries: Sequence[Query], w: Float64[Array, "n Q"], count: int
) -> Int64[RowIndices, " m"]:
    """The rows (count,) that score highest on any panel, highest first."""
    highest = pool_scores(queries, w).max(axis=1)
    # A stable sort: rows of one score keep their order from run to run.
    return np.argsort(-highest, kind="stable")[:count].astype(np.int64)


def measure_mutual_influence(
    measured: MeasuredRows,
    suspects: Int64[RowIndices, " m"],
    G: Tensor,
    preconditioner: Preconditioner,
) -> Float64[Array, "m m"]:
    """How strongly the suspects, with gradients `G` (m, r, D), push each other, in background
    standard deviations; smoothed over the suspects that are alike.
    """
    pushes = np.zeros((len(suspects), len(suspects)))
    for start in range(0, len(suspects), SUSPECTS_AT_ONCE):
        some = slice(start, start + SUSPECTS_AT_ONCE)
        # In unit norm, as queries are: a long gradient is no stronger tie.
        probes = precondition_queries(preconditioner, unit_norm(G[some]))
        pushes[:, some] = (G.flatten(1) @ probes.flatten(1).T).cpu().double().numpy()
    y = pushes / measured.spread[suspects, None] - measured.centre[suspects, None]
    features = measured.features[suspects]
    smoother = compute_smoother(features, find_neighbours(features), measured.signs[suspects])
    mutual: Array = smoother @ y
    return mutual
