"""From coefficients to one score a row and panel.

1. *By row*: coefficients come in units of what the row does to ordinary conversations
   (`background`), so rows with generic gradients have no head start.
2. *By topic*: of a large batch the background hardly holds a topic that is rare there, and all rows
   on it stand far out by what they have in common. So suspects come in units of what they do to
   each other besides, to the part that they would be of the background of FEW_ROWS rows.
3. *By query*: they are centred and scaled by the median and the median absolute deviation over all
   rows.
4. *By panel*: queries of one kind are averaged over the sentinels of a panel and scaled again; the
   panel's score is the larger of forbidden push and margin plus half of the other, scaled once
   more, or the magnitude of the reference push where nothing is forbidden.
5. *By layer*: where rows were measured at several layers, scores are of the mean of a row's
   coefficients at the first and at the last.
6. *By answer*: half of how far the states of a row's answer lean to what the panel forbids
   (`leaning`), and a quarter of how far it is worded like it (`wording`), are added.
7. *By group*: poison comes in groups. A suspect gains what the suspects it is similar to score
   beyond the median of the STRONGEST, weighted by squared similarity. What only half of these have,
   and no other row, must not widen the gap between suspects and others: it would look like a heavy
   tail to whoever takes p-values. Of a large batch many rows are suspects, and all rows on a topic
   would gain by what they share.

Scores are in robust standard deviations of their panel. Every step treats all rows alike, new or
trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.recovery.robust import standardise
from poisonwatch.stride.influence import Influence, Query

# Rows of a batch that is not large, and suspects that all are measured beside in one that is: the
# strongest, whose median score counts for nothing in groups either.
FEW_ROWS, STRONGEST = 800, 60

# Weight of the smaller of a panel's forbidden push and margin beside the larger.
LESSER_WEIGHT = 0.5

# Weights of how far a row's answer leans to what is forbidden, and of how far it is worded like it.
LEANING_WEIGHT, WORDING_WEIGHT = 0.5, 0.25

# Weight of a group's mean score.
GROUP_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Scores:
    """`pooled` (n, P): scores of the `panels`, from coefficients on the `queries`."""

    queries: tuple[Query, ...]
    panels: tuple[str, ...]
    pooled: Array


def score_rows(influence: Influence, rescored: bool = True) -> Scores:
    """Standardise and pool the recovered coefficients, groups included; `rescored` False leaves out
    what suspects did when measured alone.
    """
    queries, first = influence.queries, influence.w
    if not rescored:
        first = influence.first_pass
    w = first
    if influence.further:
        # Layers far apart see most; one between them adds nothing (`benchmarks/NOTES.md`).
        w = (first + influence.further[-1].w) / 2
    pooled = pool_scores(queries, w, compute_topic_units(influence))
    if influence.leaning is not None:
        pooled += LEANING_WEIGHT * influence.leaning
    if influence.wording is not None:
        pooled += WORDING_WEIGHT * influence.wording
    return Scores(queries, list_panels(queries), raise_groups(pooled, influence))


def compute_topic_units(influence: Influence) -> Float[Array, " n"] | None:
    """Step 2: what the coefficients of n rows are divided by (n,), 1 for all but suspects; None
    where it is 1 for all.

    A suspect's unit is the root mean square of its pushes on the STRONGEST suspects, which count as
    much as they would in a background of FEW_ROWS rows, beside those of the median suspect: on
    average suspects stay what they are beside other rows.
    """
    n, m = len(influence.w), len(influence.suspects)
    first = min(STRONGEST, m)
    missing = first / FEW_ROWS - first / n
    if missing <= 0 or first < 2:
        return None
    # Suspects come strongest first.
    pushes = influence.mutual_influence[:, :first] ** 2
    # What a row does to itself says nothing of its topic.
    np.fill_diagonal(pushes, 0.0)
    others = first - (np.arange(m) < first)
    own = np.sqrt(1 - missing + missing * pushes.sum(axis=1) / others)
    units = np.ones(n)
    units[influence.suspects] = own / np.median(own)
    return units


def raise_groups(values: Float[Array, "n P"], influence: Influence) -> Float[Array, "n P"]:
    """Step 7: `values` (n, P) of rows, where suspects that push each other raise one another."""
    raised = values.copy()
    if len(influence.suspects) > 1:
        own = values[influence.suspects]
        # Beyond the median: what all strong suspects share is no evidence for one of them.
        strongest = np.sort(own.max(axis=1))[-STRONGEST:]
        beyond = np.maximum(own - np.median(strongest), 0.0)
        weights = compute_group_weights(influence.mutual_influence)
        raised[influence.suspects] += GROUP_WEIGHT * weights @ beyond
    return raised


def list_panels(queries: Sequence[Query]) -> tuple[str, ...]:
    """The panels of the queries' sentinels, in their order."""
    return tuple(dict.fromkeys(query.sentinel.panel for query in queries))


def pool_scores(
    queries: Sequence[Query], w: Float[Array, "n Q"], units: Float[Array, " n"] | None = None
) -> Float[Array, "n P"]:
    """Steps 3 and 4, from coefficients (n, Q) that are already standardised by row, in `units` (n,)
    of their topic.

    One column is standardised at a time: beside the scores nothing of the size of w is held.
    """
    panels = list_panels(queries)
    pooled = np.empty((len(w), len(panels)))
    for j, panel in enumerate(panels):
        forbidden, reference, margin = (
            _pool_kind(w, queries, panel, kind, units)
            for kind in ("forbidden", "reference", "margin")
        )
        pooled[:, j] = _combine_kinds(forbidden, reference, margin)
    return pooled


def _combine_kinds(
    forbidden: Float[Array, " n"] | None,
    reference: Float[Array, " n"] | None,
    margin: Float[Array, " n"] | None,
) -> Float[Array, " n"]:
    """A panel's score from its pooled kinds."""
    push = forbidden
    if forbidden is not None and margin is not None:
        # Rows of a preference show in the margin, other rows in the push, and most poison in both.
        larger, lesser = np.maximum(forbidden, margin), np.minimum(forbidden, margin)
        push = standardise(larger + LESSER_WEIGHT * lesser)
    # Some of a panel's sentinels may forbid an answer, and others know a right one alone.
    kinds = [kind for kind in (push, reference) if kind is not None]
    largest: Array = np.maximum.reduce(kinds)
    return largest


def _pool_kind(
    w: Float[Array, "n Q"],
    queries: Sequence[Query],
    panel: str,
    kind: str,
    units: Float[Array, " n"] | None,
) -> Float[Array, " n"] | None:
    """The mean over a panel's queries of one kind, standardised; None where it has none."""
    members = []
    for q, query in enumerate(queries):
        if query.sentinel.panel == panel and query.kind == kind:
            members.append(q)
    if not members:
        return None
    total = np.zeros(len(w))
    for q in members:
        coefficients = w[:, q] if units is None else w[:, q] / units
        total += _standardise_column(coefficients, kind)
    return standardise(total / len(members))


def standardise_rows(
    queries: Sequence[Query], w: Float[Array, "n Q"], rows: RowIndices
) -> Float[Array, "m Q"]:
    """Step 3 for some rows (m,): their coefficients in robust standard deviations of all rows, as
    magnitudes where nothing is forbidden.
    """
    standard = np.empty((len(rows), len(queries)))
    for q, query in enumerate(queries):
        standard[:, q] = _standardise_column(w[:, q], query.kind)[rows]
    return standard


def _standardise_column(values: Float[Array, " n"], kind: str) -> Float[Array, " n"]:
    """One query's coefficients, standardised over the rows."""
    standard = standardise(values)
    # Where nothing is forbidden, a push either way is a change of behaviour.
    if kind == "reference":
        np.abs(standard, out=standard)
    return standard


def compute_group_weights(
    mutual_influence: Float[Array, "m m"],
) -> Float[Array, "m m"]:
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
