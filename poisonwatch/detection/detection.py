"""What flags an audit came to, and by which statistics; how, is in `detect`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.config import DetectionConfig
from poisonwatch.examples import AuditRows, Example, iterate_ids
from poisonwatch.flags import Flag
from poisonwatch.sentinels.sentinel import Sentinel


@dataclass(frozen=True, slots=True)
class Null:
    """How p-values were obtained: `rule` in words, `n` scores behind it."""

    rule: str
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The audit's answer for `rows`, n of them new: `scores`, `p`, `q` (n, P) by panel,
    `coefficients` (n, S) by sentinel, and `flags`.

    `recovered` (n, S) are the coefficients from recovery alone, before suspects were measured
    alone: the very same array where none was measured twice.

    `reference_scores` (n_ref, P) are the trusted rows' scores (n_ref = 0 without trusted rows), and
    `reference_coefficients` (n_ref, S) their coefficients. `unjudged` (n,) says whose score is
    anomalous, and explained by the rows around it.
    """

    rows: AuditRows
    sentinels: tuple[Sentinel, ...]
    panels: tuple[str, ...]
    scores: Array
    p: Array
    q: Array
    coefficients: Array
    recovered: Array
    reference_scores: Array
    reference_coefficients: Array
    nulls: tuple[Null, ...]
    unjudged: NDArray[np.bool_]
    flags: tuple[Flag, ...]
    false_discovery_rate: float

    @property
    def examples(self) -> Sequence[Example]:
        """The n new rows, in the order of the arrays."""
        return self.rows.new

    @classmethod
    def empty(cls, config: DetectionConfig) -> "Detection":
        """On no rows: no panel was measured."""
        nothing = np.zeros((0, 0))
        return cls(
            rows=AuditRows(()),
            sentinels=(),
            panels=(),
            scores=nothing,
            p=nothing,
            q=nothing,
            coefficients=nothing,
            recovered=nothing,
            reference_scores=nothing,
            reference_coefficients=nothing,
            nulls=(),
            unjudged=np.zeros(0, dtype=bool),
            flags=(),
            false_discovery_rate=config.false_discovery_rate,
        )


def locate_flags(flags: Sequence[Flag], rows: Sequence[Example]) -> RowIndices:
    """Where the flagged rows stand among the new `rows` of their audit, in the order of the flags.

    Rows of one content are told apart by their source and position. Raises LookupError where a
    flagged row is not among the rows.
    """
    # Ids alone pass by, and those of flagged rows alone are kept: there may be millions.
    places: dict[str, list[int]] = {flag.example.id: [] for flag in flags}
    if flags:
        for place, id in enumerate(iterate_ids(rows)):
            if id in places:
                places[id].append(place)
    found = [_choose_place(flag.example, places[flag.example.id], rows) for flag in flags]
    return np.array(found, dtype=np.int64)


def _choose_place(example: Example, places: Sequence[int], rows: Sequence[Example]) -> int:
    """The place, of those of equal rows, that the example itself stands at."""
    for place in places[:-1]:
        if (rows[place].source, rows[place].position) == (example.source, example.position):
            return place
    return places[-1]
