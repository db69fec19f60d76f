"""What attribution hands to scoring: recovered coefficients, and how they are to be read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.sentinels import Sentinel

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Query:
    """One measured quantity of one sentinel: `kind` is forbidden, reference, or margin (forbidden minus reference)."""

    sentinel: Sentinel
    kind: str


def queries_of(sentinels: Sequence[Sentinel]) -> tuple[Query, ...]:
    """What is measured: the forbidden push, the margin where both answers are given, the reference push where it stands alone."""

    def kinds(sentinel: Sentinel) -> tuple[str, ...]:
        if not sentinel.forbidden:
            return ("reference",)
        return ("forbidden", "margin") if sentinel.reference else ("forbidden",)

    return tuple(Query(sentinel, kind) for sentinel in sentinels for kind in kinds(sentinel))


@dataclass(frozen=True, slots=True)
class Influence:
    """Recovered coefficients of n rows; positive means that training on the row makes the query's answer likelier.

    `w` (n, Q) for the `queries`, in nats a token; `spread` and `centre` (n,) of each row's coefficients on the background queries;
    `suspects` (m,) the rows that score highest, and `kinship` (m, m) how strongly they push each other, in units of their spread;
    `gap` the worst relative duality gap of the recovery.
    """

    queries: tuple[Query, ...]
    w: Array
    spread: Array
    centre: Array
    suspects: NDArray[np.int64]
    kinship: Array
    gap: float

    def standard(self, w: Array) -> Array:
        """Coefficients (n, any) centred and scaled by what each row does to ordinary conversations; 0 for a row that moves none."""
        scaled: Array = (w - self.centre[:, None]) / np.where(self.spread > 0, self.spread, np.inf)[:, None]
        return scaled
