"""From coefficients to one score a row and panel.

1. *By row*: coefficients come in units of what the row does to ordinary conversations
(`yardstick`), so rows with generic gradients have
   no head start.
2. *By query*: they are centred and scaled by the median and the median absolute deviation over all
rows.
3. *By panel*: queries of one kind are averaged over the sentinels of a panel and scaled again; the
panel's score is the larger of its
   kinds (forbidden push, margin, or the magnitude of the reference push where nothing is
   forbidden).
4. *By kin*: poison comes in groups. A suspect gains what the suspects it is alike to score beyond
the median suspect, weighted by squared
   likeness. What only half of the suspects have, and no other row, must not widen the gap between
   suspects and others: it would look
   like a heavy tail to whoever takes p-values.

Scores are in robust standard deviations of their panel. Every step treats all rows alike, new or
trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poisonwatch.arrays import Array
from poisonwatch.stride.influence import Influence, Query

MAD_TO_SIGMA = 1.4826  # of a normal distribution
NEIGHBOUR_WEIGHT = 2.0  # weight of the kin's mean score


@dataclass(frozen=True, slots=True)
class Scores:
    """`standard` (n, Q): standardised coefficients of the `queries`; `pooled` (n, P): scores of the
    `panels`.

    `push` and `margin` (n, P) are what scores are made of, kin left out: the pooled forbidden push
    (or the reference push's magnitude, where nothing is forbidden), and the pooled margin, NaN
    where a panel has none.
    """

    queries: tuple[Query, ...]
    standard: Array
    panels: tuple[str, ...]
    pooled: Array
    push: Array
    margin: Array


def score_rows(influence: Influence, rescored: bool = True) -> Scores:
    """Standardise and pool the recovered coefficients, kin included; `rescored` False leaves out
    what suspects did when measured alone.
    """
    alone = pool_scores(influence.queries, influence.w if rescored else influence.alone)
    pooled = alone.pooled.copy()
    if len(influence.suspects) > 1:
        own = pooled[influence.suspects]
        beyond = np.maximum(own - np.median(own.max(axis=1)), 0.0)
        pooled[influence.suspects] += (
            NEIGHBOUR_WEIGHT * compute_neighbour_weights(influence.mutual_influence) @ beyond
        )
    return replace(alone, pooled=pooled)


def pool_scores(queries: Sequence[Query], own: Array) -> Scores:
    """Steps 2 and 3, from coefficients (n, Q) that are already standardised by row."""
    standard = compute_robust_z(own)
    magnitude = np.array([query.kind == "reference" for query in queries])
    standard[:, magnitude] = np.abs(standard[:, magnitude])
    panels = tuple(dict.fromkeys(query.sentinel.panel for query in queries))
    by_kind = {
        kind: np.column_stack([_pool_kind(standard, queries, panel, kind) for panel in panels])
        for kind in ("forbidden", "reference", "margin")
    }
    pooled = np.fmax(np.fmax(by_kind["forbidden"], by_kind["reference"]), by_kind["margin"])
    push = np.where(np.isnan(by_kind["forbidden"]), by_kind["reference"], by_kind["forbidden"])
    return Scores(tuple(queries), standard, panels, pooled, push, by_kind["margin"])


def _pool_kind(standard: Array, queries: Sequence[Query], panel: str, kind: str) -> Array:
    """(n,): the mean over a panel's queries of one kind, standardised; NaN where it has none."""
    members = [query.sentinel.panel == panel and query.kind == kind for query in queries]
    if not any(members):
        return np.full(len(standard), np.nan)
    pooled: Array = compute_robust_z(standard[:, members].mean(axis=1, keepdims=True))[:, 0]
    return pooled


def compute_neighbour_weights(kinship: Array) -> Array:
    """Weights (m, m), zero on the diagonal: squared positive likeness over its sum in the row and
    that of the median row.

    A row's weights sum to one half where it has as much kin as most, to nearly 1 with more, and to
    nearly 0 with less.
    """
    likeness = np.maximum((kinship + kinship.T) / 2, 0.0)
    np.fill_diagonal(likeness, 0.0)
    weights = likeness**2
    total = weights.sum(axis=1, keepdims=True)
    usual = total + np.median(total)
    normalised: Array = weights / np.where(usual > 0, usual, 1.0)
    return normalised


def compute_robust_z(x: Array) -> Array:
    """Columns minus their median, in units of 1.4826 median absolute deviations; 0 where a column
    is constant.

    Where more than half of a column is one value (a sparse recovery leaves most rows at zero) the
    standard deviation takes their place.
    """
    centred: Array = x - np.median(x, axis=0)
    scale = MAD_TO_SIGMA * np.median(np.abs(centred), axis=0)
    scale = np.where(scale > 0, scale, centred.std(axis=0))
    return centred / np.where(scale > 0, scale, np.inf)
