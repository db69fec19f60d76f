"""How well scores predict what retraining does.

    LDS(q)      linear datamodeling score: Spearman over subsets s of  sum_{i in s} score_i(q)  and  -loss_s(q)   (arXiv 2303.14186)

Scores are positive where a row makes the query likelier.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


def lds(scores: Array, subsets: Bools, losses: Array) -> Array:
    """Linear datamodeling score (Q,): Spearman correlation over m subsets of the summed scores of
    the rows kept with minus the loss.

    `scores` (n, Q), positive where a row makes the query likelier; `subsets` (m, n); `losses` (m,
    Q). A constant column scores 0.
    """
    return _spearman(subsets.astype(np.float64) @ scores, -losses)


def _spearman(x: Array, y: Array) -> Array:
    """Rank correlations (Q,) of the columns of x and y (m, Q)."""
    a, b = (ranks - ranks.mean(axis=0) for ranks in (rankdata(x, axis=0), rankdata(y, axis=0)))
    scale = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    correlation: Array = (a * b).sum(axis=0) / np.where(scale > 0, scale, 1.0)
    return correlation


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    scores: Array,
    subsets: Bools,
    losses: Array,
    other: Array | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean LDS over queries, with an interval from resampling both retrainings and queries.

    With the scores of an `other` scorer (n, Q): of the difference, this one minus the other, on the
    same draws.
    """
    predicted = [subsets.astype(np.float64) @ each for each in (scores, other) if each is not None]
    rng = np.random.default_rng(seed)

    def mean(retrainings: Indices, queries: Indices) -> float:
        means = [
            _spearman(x[np.ix_(retrainings, queries)], -losses[np.ix_(retrainings, queries)]).mean()
            for x in predicted
        ]
        return float(means[0] - sum(means[1:]))

    m, Q = losses.shape
    drawn = [mean(rng.integers(m, size=m), rng.integers(Q, size=Q)) for _ in range(draws)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean(np.arange(m), np.arange(Q)), float(low), float(high))
