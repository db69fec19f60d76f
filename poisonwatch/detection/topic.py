"""The topic must cancel: honest rows about what a sentinel asks push its answers, too, and are the
false alarms to beat.

A row is held against a panel only where it differs from what is around it, by one of two measures:

    excess over neighbours    the row's push, minus the upper quartile of that of its NEAREST_ROWS
                              rows: honest rows on a topic have a crowd around them that does the
                              same
    margin with neighbours    the row's margin (forbidden minus reference answer) plus the mean
                              margin of its CLOSEST_ROWS rows: honest rows on a topic raise both
                              answers, and poison that comes as a crowd of its own, which hides it
                              from the first measure, does not

Nearness is similarity of the frozen model's states (`stride.similarity`), over new and trusted rows
together.

Each measure is turned into a p-value as scores are, panel by panel (`detect.flag_rows`): by
`significance.compute_p_values`, the rank among the trusted rows' own values with a
generalised-Pareto tail, or the bulk of all rows where trusted ones are too few. The topic explains
a row's score unless the smaller of its two p-values (the first alone, where a panel has no margin)
is at most LEVEL. That is a level for one row and one measure, not corrected for the number of rows,
of panels or of measures: of rows exchangeable with the trusted ones about a fiftieth pass each
measure, at most a twenty-fifth either. It only lets a row through to its score: false discoveries
are bounded by the score's own p-value, which enters the correction as it is, or as 1 where the
topic explains the score.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from poisonwatch.arrays import Array, Features, RowIndices

NEAREST_ROWS = 20
CLOSEST_ROWS = 5
UPPER = 0.75
# p-value that either measure must reach; 1 / (1 + N) where N new and trusted rows are fewer than
# 49: a rank ends there
LEVEL = 0.02


def find_nearest_rows(features: Features, m: int = NEAREST_ROWS) -> RowIndices:
    """The up to m nearest other rows (n, m) by `features` (n, f), nearest first."""
    m = min(m, len(features) - 1)
    if m < 1:
        return np.empty((len(features), 0), dtype=np.int64)
    # Trees do not help in as many dimensions as states have.
    search = NearestNeighbors(n_neighbors=m, algorithm="brute").fit(features)
    # Without an argument the search leaves each row out of its own neighbours.
    nearest: RowIndices = search.kneighbors(return_distance=False).astype(np.int64)
    return nearest


def compute_excess_over_neighbours(push: Array, nearest: RowIndices) -> Array:
    """push (n,) beyond the upper quartile of the nearest rows' (n, m)."""
    excess: Array = push - np.quantile(push[nearest], UPPER, axis=1)
    return excess


def compute_margin_with_neighbours(margin: Array, nearest: RowIndices) -> Array:
    """margin (n,) with the mean of the closest rows'."""
    together: Array = margin + margin[nearest[:, :CLOSEST_ROWS]].mean(axis=1)
    return together
