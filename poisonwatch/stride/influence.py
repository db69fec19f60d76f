"""What attribution hands to scoring: recovered coefficients, and how they are to be read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array
from poisonwatch.sentinels.sentinel import Sentinel


@dataclass(frozen=True, slots=True)
class Query:
    """One measured quantity of one sentinel: `kind` is forbidden, reference, or margin (forbidden
    minus reference).
    """

    sentinel: Sentinel
    kind: str


def build_queries(sentinels: Sequence[Sentinel]) -> tuple[Query, ...]:
    """What is measured: the forbidden push, the margin where both answers are given, the reference
    push where it stands alone.
    """

    def kinds(sentinel: Sentinel) -> tuple[str, ...]:
        if not sentinel.forbidden:
            return ("reference",)
        return ("forbidden", "margin") if sentinel.reference else ("forbidden",)

    return tuple(Query(sentinel, kind) for sentinel in sentinels for kind in kinds(sentinel))


@dataclass(frozen=True, slots=True)
class Influence:
    """Recovered coefficients of n rows; positive means that training on the row makes the query's
    answer likelier.

    `w` (n, Q) for the `queries`, in spreads: how far beyond its push on ordinary conversations a
    row pushes the query, in units of how much the former varies. `alone` (n, Q) is the same before
    suspects were measured alone; equal to w where every row is a subset of its own. `suspects` (m,)
    are the rows that score highest, `kinship` (m, m) how strongly they push each other, in the same
    unit. `features` (n, f) say which rows are alike (`likeness`; f = 0 where nothing is known).
    `certificate` is the worst relative duality gap (lasso) or residual (kriging) of the recoveries,
    `measured_alone` counts the rows that were, and `artefacts` (Q,) is the 95 % quantile of phantom
    coefficients: what recovery makes of rows that do not exist (lasso only).
    """

    queries: tuple[Query, ...]
    w: Array
    alone: Array
    suspects: NDArray[np.int64]
    mutual_influence: Array
    features: NDArray[np.float32]
    certificate: float
    measured_alone: int = 0
    decoy_quantile: Array | None = None
