"""From coefficients to one score a row and panel.

1. *By row*: coefficients come in units of what the row does to ordinary conversations (`yardstick`), so rows with generic gradients have
   no head start.
2. *By query*: they are centred and scaled by the median and the median absolute deviation over all rows.
3. *By panel*: queries of one kind are averaged over the sentinels of a panel and scaled again; the panel's score is the larger of its
   kinds (forbidden push, margin, or the magnitude of the reference push where nothing is forbidden).
4. *By kin*: poison comes in groups. A suspect gains the average score of the suspects it is alike to, weighted by squared likeness.

Scores are in robust standard deviations of their panel. Every step treats all rows alike, new or trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.influence import Influence, Query

Array = NDArray[np.float64]
MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True, slots=True)
class Scores:
    """`standard` (n, Q): standardised coefficients of the `queries`; `pooled` (n, P): scores of the `panels`."""

    queries: tuple[Query, ...]
    standard: Array
    panels: tuple[str, ...]
    pooled: Array


def score(influence: Influence, rescored: bool = True) -> Scores:
    """Standardise and pool the recovered coefficients, kin included; `rescored` False leaves out what suspects did when measured alone."""
    alone = pool(influence.queries, influence.w if rescored else influence.alone)
    pooled = alone.pooled.copy()
    if len(influence.suspects) > 1:
        pooled[influence.suspects] += kin_weights(influence.kinship) @ np.maximum(pooled[influence.suspects], 0.0)
    return Scores(alone.queries, alone.standard, alone.panels, pooled)


def pool(queries: Sequence[Query], own: Array) -> Scores:
    """Steps 2 and 3, from coefficients (n, Q) that are already standardised by row."""
    standard = robust_z(own)
    magnitude = np.array([query.kind == "reference" for query in queries])
    standard[:, magnitude] = np.abs(standard[:, magnitude])
    panels = tuple(dict.fromkeys(query.sentinel.panel for query in queries))
    pooled = np.column_stack([_pool_panel(standard, queries, panel) for panel in panels])
    return Scores(tuple(queries), standard, panels, pooled)


def _pool_panel(standard: Array, queries: Sequence[Query], panel: str) -> Array:
    kinds = sorted({query.kind for query in queries if query.sentinel.panel == panel})
    members = [[query.sentinel.panel == panel and query.kind == kind for query in queries] for kind in kinds]
    pooled: Array = robust_z(np.column_stack([standard[:, of_kind].mean(axis=1) for of_kind in members])).max(axis=1)
    return pooled


def kin_weights(kinship: Array) -> Array:
    """Weights (m, m), rows summing to 1 (or 0 for a row without kin), zero on the diagonal: squared positive likeness."""
    likeness = np.maximum((kinship + kinship.T) / 2, 0.0)
    np.fill_diagonal(likeness, 0.0)
    weights = likeness**2
    total = weights.sum(axis=1, keepdims=True)
    normalised: Array = weights / np.where(total > 0, total, 1.0)
    return normalised


def robust_z(x: Array) -> Array:
    """Columns minus their median, in units of 1.4826 median absolute deviations; 0 where a column is constant.

    Where more than half of a column is one value (a sparse recovery leaves most rows at zero) the standard deviation takes their place.
    """
    centred: Array = x - np.median(x, axis=0)
    scale = MAD_TO_SIGMA * np.median(np.abs(centred), axis=0)
    scale = np.where(scale > 0, scale, centred.std(axis=0))
    return centred / np.where(scale > 0, scale, np.inf)
