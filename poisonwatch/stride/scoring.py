"""From coefficients to one score a row and panel.

1. *By row*: coefficients come in units of what the row does to ordinary conversations
   (`background`), so rows with generic gradients have no head start.
2. *By query*: they are centred and scaled by the median and the median absolute deviation over all
   rows.
3. *By panel*: queries of one kind are averaged over the sentinels of a panel and scaled again; the
   panel's score is the larger of its kinds (forbidden push, margin, or the magnitude of the
   reference push where nothing is forbidden).
4. *By neighbours*: poison comes in groups. A suspect gains what the suspects it is similar to score
   beyond the median suspect, weighted by squared similarity. What only half of the suspects have,
   and no other row, must not widen the gap between suspects and others: it would look like a heavy
   tail to whoever takes p-values.

Scores are in robust standard deviations of their panel. Every step treats all rows alike, new or
trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from poisonwatch.arrays import Array
from poisonwatch.stride.influence import Influence, Query

# Of a normal distribution.
MAD_TO_SIGMA = 1.4826

# Weight of the neighbours' mean score.
NEIGHBOUR_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Scores:
    """`standard` (n, Q): standardised coefficients of the `queries`; `pooled` (n, P): scores of the
    `panels`.

    `push` and `margin` (n, P) are what scores are made of, neighbours left out: the pooled
    forbidden push (or the reference push's magnitude, where nothing is forbidden), and the pooled
    margin, NaN where a panel has none.
    """

    queries: tuple[Query, ...]
    standard: Array
    panels: tuple[str, ...]
    pooled: Array
    push: Array
    margin: Array


def score_rows(influence: Influence, rescored: bool = True) -> Scores:
    """Standardise and pool the recovered coefficients, neighbours included; `rescored` False leaves
    out what suspects did when measured alone.
    """
    w = influence.w
    if not rescored:
        w = influence.first_pass
    scores = pool_scores(influence.queries, w)
    pooled = scores.pooled.copy()
    if len(influence.suspects) > 1:
        own = pooled[influence.suspects]
        # Beyond the median suspect: what all suspects share is no evidence for one of them.
        beyond = np.maximum(own - np.median(own.max(axis=1)), 0.0)
        weights = compute_neighbour_weights(influence.mutual_influence)
        pooled[influence.suspects] += NEIGHBOUR_WEIGHT * weights @ beyond
    return replace(scores, pooled=pooled)


def pool_scores(queries: Sequence[Query], w: Float64[Array, "n Q"]) -> Scores:
    """Steps 2 and 3, from coefficients (n, Q) that are already standardised by row."""
    standard = compute_robust_z(w)
    magnitude = np.array([query.kind == "reference" for query in queries])
    # Where nothing is forbidden, a push either way is a change of behaviour.
    standard[:, magnitude] = np.abs(standard[:, magnitude])
    panels = tuple(dict.fromkeys(query.sentinel.panel for query in queries))
    forbidden, reference, margin = (
        _pool_panels(standard, queries, panels, kind)
        for kind in ("forbidden", "reference", "margin")
    )
    # fmax: a panel without queries of a kind has NaN there, and its score from the others.
    return Scores(
        queries=tuple(queries),
        standard=standard,
        panels=panels,
        pooled=np.fmax(np.fmax(forbidden, reference), margin),
        push=np.where(np.isnan(forbidden), reference, forbidden),
        margin=margin,
    )


def _pool_panels(
    standard: Array, queries: Sequence[Query], panels: Sequence[str], kind: str
) -> Array:
    """(n, P): the pooled scores of one kind, panel by panel."""
    return np.column_stack([_pool_kind(standard, queries, panel, kind) for panel in panels])


def _pool_kind(standard: Array, queries: Sequence[Query], panel: str, kind: str) -> Array:
    """(n,): the mean over a panel's queries of one kind, standardised; NaN where it has none."""
    members = [query.sentinel.panel == panel and query.kind == kind for query in queries]
    if not any(members):
        return np.full(len(standard), np.nan)
    pooled: Array = compute_robust_z(standard[:, members].mean(axis=1, keepdims=True))[:, 0]
    return pooled


def compute_neighbour_weights(
    mutual_influence: Float64[Array, "m m"],
) -> Float64[Array, "m m"]:
    """Weights (m, m), zero on the diagonal, from the suspects' mutual influence (m, m): its
    positive symmetric part, squared, over its sum in the row and that of the median row.

    A row's weights sum to one half where it has as many neighbours as most, to nearly 1 with more,
    and to nearly 0 with fewer.
    """
    similarity = np.maximum((mutual_influence + mutual_influence.T) / 2, 0.0)
    # A row is no neighbour of its own.
    np.fill_diagonal(similarity, 0.0)
    weights = similarity**2
    total = weights.sum(axis=1, keepdims=True)
    usual = total + np.median(total)
    normalised: Array = weights / np.where(usual > 0, usual, 1.0)
    return normalised


def compute_robust_z(x: Float64[Array, "n Q"]) -> Float64[Array, "n Q"]:
    """Columns minus their median, in units of 1.4826 median absolute deviations; 0 where a column
    is constant.

    Where more than half of a column is one value (a sparse recovery leaves most rows at zero) the
    standard deviation takes their place.
    """
    centred: Array = x - np.median(x, axis=0)
    scale = MAD_TO_SIGMA * np.median(np.abs(centred), axis=0)
    # A sparse recovery leaves most rows at 0, and so their median deviation.
    scale = np.where(scale > 0, scale, centred.std(axis=0))
    return centred / np.where(scale > 0, scale, np.inf)
