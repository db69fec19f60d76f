"""What attribution hands to scoring: recovered coefficients, and how they are to be read."""

from collections.abc import Sequence
from dataclasses import dataclass

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
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
    queries = []
    for sentinel in sentinels:
        # A push on the only answer given: neither way of moving it is forbidden.
        if not sentinel.forbidden:
            queries.append(Query(sentinel, "reference"))
            continue
        queries.append(Query(sentinel, "forbidden"))
        if sentinel.reference:
            queries.append(Query(sentinel, "margin"))
    return tuple(queries)


@dataclass(frozen=True, slots=True)
class LayerInfluence:
    """The coefficients `w` (n, Q) at another layer, in background standard deviations there, and
    which rows are most alike by its states.
    """

    w: Array
    neighbours: NeighbourGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """Recovered coefficients of n rows; positive means that training on the row makes the query's
    answer likelier.

    `w` (n, Q) for the `queries` counts background standard deviations: how far beyond its push on
    ordinary conversations a row pushes the query, in units of how much the former varies.
    `first_pass` (n, Q) is the same before suspects were measured alone; equal to w where every row
    is a subset of its own. `suspects` (m,) are the rows that score highest, highest first, and
    `mutual_influence` (m, m) is how strongly they push each other, in the same unit. `features` (n,
    f) say which rows are alike (`similarity`; f = 0 where nothing is known), `neighbours` which are
    most. `certificate` is the worst of the
    recoveries' (`recovery.estimate`), `measured_alone` counts the rows that were, and
    `decoy_quantile` (Q,) is the 95 % quantile of decoy coefficients: what recovery makes of rows
    that do not exist (Lasso only). `further` is what layers above say; `leaning` and `wording` (n,
    P) are how far rows' answers lean to what panels forbid by their states, and how far they are
    worded like it; None where nobody looked.
    """

    queries: tuple[Query, ...]
    w: Array
    first_pass: Array
    suspects: RowIndices
    mutual_influence: Array
    features: Features
    neighbours: NeighbourGraph
    certificate: float
    measured_alone: int = 0
    decoy_quantile: Array | None = None
    further: tuple[LayerInfluence, ...] = ()
    leaning: Array | None = None
    wording: Array | None = None
