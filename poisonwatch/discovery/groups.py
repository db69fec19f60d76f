"""Groups of rows that push the model the same way, and whether trusted rows do so, too.

    rows, new and trusted together --> tree of how alike they are         (`tree`)
    every branch                   --> is it newer than the rest?         (`news`)
    the same with labels shuffled  --> what chance makes of the search
    the best, each of its own rows --> groups, with p- and q-values

A group may lie within another: rows of a topic that is new as a whole, and those of them that teach
something else. Of two that are nearly the same, the better one stands.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.discovery.directions import Directions
from poisonwatch.discovery.news import Search, search_news
from poisonwatch.discovery.tree import grow_tree
from poisonwatch.stride.sampling import draw_order

Bools = NDArray[np.bool_]

# New rows from which groups are looked for.
LEAST_NEW = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGroup:
    """Rows that push the model the same way: `rows` are places among all, new ones, the most
    typical first; `trusted_rows` those trusted rows that push that way, too.

    `strength` is the mean cosine of its new rows' pairs, `nearest` that of the trusted row that is
    most like them, as a share of it. Of the `statistic`, `p_value` is the chance that the best
    group of a batch without news scores as high, and `q_value` the share of groups that would be no
    news among all that score as high; 1 where nothing calibrates them.
    """

    rows: tuple[int, ...]
    trusted_rows: tuple[int, ...]
    strength: float
    nearest: float
    statistic: float
    p_value: float
    q_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The groups of an audit's rows, best first, and the `rule` that calibrates them, in words."""

    groups: tuple[FoundGroup, ...]
    rule: str
    n_new: int
    n_trusted: int

    def list_found(self, rate: float) -> tuple[FoundGroup, ...]:
        """The groups that are news at a false-discovery rate over groups."""
        return tuple(group for group in self.groups if group.q_value <= rate)


def find_groups(directions: Directions, trusted: Bools, seed: int = 0) -> Discovery:
    """The groups of the rows that are not `trusted` (n,), by all rows' directions.

    They depend on ids and seed, not on the rows' order.
    """
    n_new, n_trusted = int((~trusted).sum()), int(trusted.sum())
    if n_new < LEAST_NEW:
        rule = f"{n_new} new rows are too few: groups are looked for from {LEAST_NEW} on"
        return Discovery(groups=(), rule=rule, n_new=n_new, n_trusted=n_trusted)
    by_id = draw_order(directions.ids, seed)
    cosines = directions.cosines[np.ix_(by_id, by_id)]
    labels = trusted[by_id]
    tree = grow_tree(cosines, directions.features[by_id])
    search = search_news(tree, labels, tree.average_pairs(cosines), seed)
    groups = [
        _describe(search, place, cosines, labels, by_id) for place in range(len(search.branches))
    ]
    return Discovery(groups=tuple(groups), rule=search.rule, n_new=n_new, n_trusted=n_trusted)


def _describe(
    search: Search, place: int, cosines: Features, trusted: Bools, by_id: RowIndices
) -> FoundGroup:
    rows = search.tree.get_rows(int(search.branches[place]))
    new, known = rows[~trusted[rows]], rows[trusted[rows]]
    pairs = cosines[np.ix_(new, new)].astype(np.float64)
    within: Array = (pairs.sum(axis=1) - pairs.diagonal()) / (len(new) - 1)
    strength, furthest = float(within.mean()), 0.0
    if trusted.any():
        furthest = float(cosines[np.ix_(new, np.flatnonzero(trusted))].mean(axis=0).max())
    # Rounded: equal rows must stay equal, whatever the order of the sum.
    typical = np.argsort(-within.round(6), kind="stable")
    return FoundGroup(
        rows=tuple(by_id[new[typical]].tolist()),
        trusted_rows=tuple(by_id[known].tolist()),
        strength=strength,
        nearest=furthest / strength if strength > 0 else 1.0,
        statistic=float(search.scores[place]),
        p_value=float(search.p[place]),
        q_value=float(search.q[place]),
    )
