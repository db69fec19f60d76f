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
together: the first of each row's neighbours in `Influence.neighbours`.

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

from collections.abc import Iterator

import numpy as np

from poisonwatch.arrays import Array, RowIndices

NEAREST_ROWS = 20
CLOSEST_ROWS = 5
UPPER = 0.75
# p-value that either measure must reach; 1 / (1 + N) where N new and trusted rows are fewer than
# 49: a rank ends there
LEVEL = 0.02

# The neighbours' values of so many rows are held at a time.
ROWS_AT_ONCE = 65_536


def compute_excess_over_neighbours(push: Array, neighbours: RowIndices) -> Array:
    """push (n,) beyond the upper quartile of that of the first NEAREST_ROWS of the neighbours (n,
    k), most alike first.
    """
    nearest = neighbours[:, :NEAREST_ROWS]
    excess = np.empty(len(push))
    for some in _split_rows(len(push)):
        excess[some] = push[some] - np.quantile(push[nearest[some]], UPPER, axis=1)
    return excess


def compute_margin_with_neighbours(margin: Array, neighbours: RowIndices) -> Array:
    """margin (n,) with the mean of the first CLOSEST_ROWS of the neighbours' (n, k), most alike
    first.
    """
    closest = neighbours[:, :CLOSEST_ROWS]
    together = np.empty(len(margin))
    for some in _split_rows(len(margin)):
        together[some] = margin[some] + margin[closest[some]].mean(axis=1)
    return together


def _split_rows(n: int) -> Iterator[slice]:
    for start in range(0, n, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
