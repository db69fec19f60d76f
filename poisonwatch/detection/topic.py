"""The topic must cancel: honest rows about what a sentinel asks push its answers, too, and are the
false alarms to beat.

A row is held against a panel for what it does beyond the rows around it, its neighbours (most like
it by the frozen model's states, new and trusted together):

    excess        the row's score, minus the LOW quantile of its neighbours' scores
    in spreads    the excess, in units of how far scores lie apart there: of the quantiles BETWEEN,
                  as standard deviations of a normal, on average over the neighbours; one at least

Low quantiles, because a crowd of poison cannot capture them: of 32 neighbours, 25 rows that belong
together leave the lowest fifth to the honest ones. The excess alone would still flag the outer rows
of an honest crowd that pushes a sentinel, where scores lie far apart: a row is flagged only where
it stands out by LEAST_SPREADS of these, too. Each layer has its own neighbours, and the least that
a row stands out by counts.

A row may lead such a crowd all the same:

    lead          an anomalous row's score, in units of the USUAL quantile of the scores of those of
                  its neighbours that are anomalous, too

An honest crowd's scores are alike in proportion, whatever pushes the sentinel: on topics of twelve
kinds hardly a row led by that much. Where scores of the crowd are as far apart as planted rows are
from it, spreads do not see these, and this does (`benchmarks/RESULTS.md`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from poisonwatch.arrays import Array, RowIndices

LOW = 0.2
BETWEEN = (0.05, 0.2)
# Spreads that a row must stand out by to be flagged.
LEAST_SPREADS = 4.75

# Of a crowd: the quantile that counts as usual there, so low that planted rows raise it little
# while they are fewer; how many rows make one; and how far a row must lead it to be flagged.
USUAL, LEAST_CROWD, LEAST_LEAD = 0.35, 8, 1.8

# The neighbours' values of so many rows are held at a time.
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Excess:
    """What rows score `beyond` (n, P) the rows around them, on each panel, and that `in_spreads`
    (n, P) of theirs.
    """

    beyond: Array
    in_spreads: Array

    @classmethod
    def without_neighbours(cls, scores: Array) -> "Excess":
        """Of scores (n, P) where nothing is known of topics: every row stands out."""
        return cls(scores, np.full(scores.shape, np.inf))

    @classmethod
    def agreed(cls, of_layers: Sequence["Excess"]) -> "Excess":
        """What several layers' neighbours agree on: the least that a row does beyond them."""
        return cls(
            np.minimum.reduce([each.beyond for each in of_layers]),
            np.minimum.reduce([each.in_spreads for each in of_layers]),
        )

    @property
    def stands_out(self) -> NDArray[np.bool_]:
        """Whether a row stands out far enough to be flagged (n, P)."""
        return self.in_spreads >= LEAST_SPREADS


def compute_excess(scores: Array, neighbours: RowIndices) -> Excess:
    """The excess of scores (n, P) over those of the rows' `neighbours` (n, k)."""
    if not neighbours.shape[1]:
        return Excess.without_neighbours(scores)
    beyond, spread = np.empty(scores.shape), np.empty(scores.shape)
    # in standard deviations of a normal distribution
    apart = float(norm.ppf(BETWEEN[1]) - norm.ppf(BETWEEN[0]))
    for some in _split_rows(len(scores)):
        around = scores[neighbours[some]]
        low, least, most = np.quantile(around, (LOW, *BETWEEN), axis=1)
        beyond[some] = scores[some] - low
        spread[some] = (most - least) / apart
    in_spreads = np.empty(scores.shape)
    for some in _split_rows(len(scores)):
        # Of 32 scores a quantile is noisy, of the neighbours' neighbours together it is not.
        usual = spread[neighbours[some]].mean(axis=1)
        # A panel's scores have unit scale: rows that all do the same are not told apart further.
        in_spreads[some] = beyond[some] / np.maximum(usual, 1.0)
    return Excess(beyond, in_spreads)


def compute_lead(scores: Array, anomalous: NDArray[np.bool_], neighbours: RowIndices) -> Array:
    """How far `anomalous` rows (n, P) lead the crowd around them by their scores (n, P): what they
    score, in units of what is usual there; 0 where a row is not anomalous, or no crowd is there.
    """
    lead = np.zeros(scores.shape)
    for panel in range(scores.shape[1]):
        rows = np.flatnonzero(anomalous[:, panel])
        own = scores[:, panel]
        for some in _split_rows(len(rows)):
            around = neighbours[rows[some]]
            of_crowd = np.where(anomalous[around, panel], own[around], np.nan)
            is_crowd = np.isfinite(of_crowd).sum(axis=1) >= LEAST_CROWD
            leading = rows[some][is_crowd]
            if len(leading):
                usual = np.nanquantile(of_crowd[is_crowd], USUAL, axis=1)
                # Scores have unit scale: of less than that nothing is twice as much.
                lead[leading, panel] = own[leading] / np.maximum(usual, 1.0)
    return lead


def describe_lead(lead: float) -> str:
    """How far a row leads the crowd around it, in words."""
    return f"{lead:.1f} times what is usual among the anomalous rows around it"


def describe_standing(in_spreads: float) -> str:
    """How a row stands among those around it, in words."""
    if np.isinf(in_spreads):
        return "nothing known of its topic"
    return f"{in_spreads:.1f} times the scatter of the rows most like it beyond them"


def _split_rows(n: int) -> Iterator[slice]:
    for start in range(0, n, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
