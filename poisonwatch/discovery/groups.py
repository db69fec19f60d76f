"""Groups of rows that push the model the same way, and whether trusted rows do so, too.

    rows, new and trusted together --> tree of how alike they push        (`tree`)
    every branch                   --> is it newer than the rest?         (a scan over the tree)
    the same with labels shuffled  --> what chance makes of the search    (p- and q-values)

A branch of a new and b trusted rows scores the Bernoulli likelihood ratio of its share of new rows,
a / (a + b), against that of the rest (Kulldorff, Communications in Statistics 26, 1997; over trees:
Kulldorff, Fang and Walsh, Biometrics 59, 2003). A branch that is no newer than the rest scores 0:
what trusted rows do, too, is no news. Groups are the branches that score more than any within them
and no less than any that holds them.

Calibration shuffles which rows are new. It assumes that new rows without a plant are like trusted
ones; honest rows of a kind that nothing trusted covers are news, and are found. Without trusted
rows nothing says what is news: groups are ranked by how alike they push, and have no p-value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.discovery.directions import Directions
from poisonwatch.discovery.tree import Tree, grow_tree
from poisonwatch.stride.sampling import draw_order

Bools = NDArray[np.bool_]

# New rows of a group, at least; and those that a batch takes for any to be looked for.
LEAST_GROUP = 4
LEAST_NEW = 20

# Groups that are named, whether or not they are beyond chance.
MOST_GROUPS = 50

SHUFFLES = 200


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
    by_id = np.array(draw_order(directions.ids, seed))
    cosines = directions.cosines[np.ix_(by_id, by_id)]
    labels = trusted[by_id]
    tree = grow_tree(cosines)
    scores = score_branches(tree, labels[None])[0]
    chosen = choose_branches(tree, scores[None])[0]
    draws = np.random.default_rng(seed)
    shuffled = np.stack([draws.permutation(labels) for _ in range(SHUFFLES)])
    null = score_branches(tree, shuffled)
    highest = null.max(axis=1)
    found = np.flatnonzero(chosen & (scores > 0))
    found = found[np.argsort(-scores[found], kind="stable")]
    q = compute_q_values(scores[found], null[choose_branches(tree, null)], SHUFFLES)
    groups = []
    for place, branch in enumerate(found[:MOST_GROUPS].tolist()):
        rows = tree.get_rows(branch)
        groups.append(
            _describe(
                cosines,
                labels,
                rows,
                by_id,
                statistic=float(scores[branch]),
                p_value=float((1 + (highest >= scores[branch]).sum()) / (SHUFFLES + 1)),
                q_value=float(q[place]),
            )
        )
    rule = f"which rows are new, shuffled {SHUFFLES} times"
    return Discovery(groups=tuple(groups), rule=rule, n_new=n_new, n_trusted=n_trusted)


def score_branches(tree: Tree, trusted: Bools) -> Array:
    """The scan statistic (p, n - 1) of every branch under p labellings `trusted` (p, n)."""
    new = (~trusted).astype(np.float64)
    inside_new = tree.count(new)
    size = (tree.stop - tree.start).astype(np.float64)[None]
    total_new, n = new.sum(axis=1, keepdims=True), new.shape[1]
    outside_new, outside = total_new - inside_new, n - size
    with np.errstate(invalid="ignore", divide="ignore"):
        share, rest, overall = inside_new / size, outside_new / outside, total_new / n
        gain = (
            _log_likelihood(inside_new, size, share)
            + _log_likelihood(outside_new, outside, rest)
            - _log_likelihood(inside_new, size, overall)
            - _log_likelihood(outside_new, outside, overall)
        )
    newer = (inside_new >= LEAST_GROUP) & (outside > 0) & (share > overall)
    scores: Array = np.where(newer, gain, 0.0)
    return scores


def _log_likelihood(hits: Array, size: Array, share: Array) -> Array:
    misses = size - hits
    with np.errstate(divide="ignore", invalid="ignore"):
        of_hits = np.where(hits > 0, hits * np.log(share), 0.0)
        of_misses = np.where(misses > 0, misses * np.log1p(-share), 0.0)
    value: Array = of_hits + of_misses
    return value


def choose_branches(tree: Tree, scores: Array) -> Bools:
    """Which branches (p, n - 1) score more than all within them, and at least as much as all that
    hold them; of `scores` (p, n - 1).
    """
    branches = scores.shape[1]
    n = branches + 1
    best = scores.T.copy()  # by branch, so that a step reads rows
    below = np.zeros_like(best)
    for branch, children in enumerate(tree.children.tolist()):
        for child in children:
            if child >= n:
                np.maximum(below[branch], best[child - n], out=below[branch])
        np.maximum(best[branch], below[branch], out=best[branch])
    chosen = below < scores.T
    blocked = np.zeros(chosen.shape, dtype=bool)
    for branch in range(branches - 1, -1, -1):
        stop = blocked[branch] | chosen[branch]
        chosen[branch] &= ~blocked[branch]
        for child in tree.children[branch].tolist():
            if child >= n:
                blocked[child - n] = stop
    return chosen.T


def compute_q_values(scores: Array, null: Array, draws: int) -> Array:
    """q-values (m,) of falling scores (m,): groups that `draws` batches without news have at that
    score, on average, over those that are there.
    """
    ordered = np.sort(null)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    expected = (above + 1) / (draws + 1)
    ratio = np.minimum(expected / np.arange(1, len(scores) + 1), 1.0)
    q: Array = np.minimum.accumulate(ratio[::-1])[::-1]
    return q


def _describe(
    cosines: NDArray[np.float32],
    trusted: Bools,
    rows: RowIndices,
    by_id: RowIndices,
    *,
    statistic: float,
    p_value: float,
    q_value: float,
) -> FoundGroup:
    new, known = rows[~trusted[rows]], rows[trusted[rows]]
    m = len(new)
    pairs = cosines[np.ix_(new, new)].astype(np.float64)
    within = (pairs.sum(axis=1) - pairs.diagonal()) / (m - 1)
    strength, furthest = float(within.mean()), 0.0
    if trusted.any():
        furthest = float(cosines[np.ix_(new, np.flatnonzero(trusted))].mean(axis=0).max())
    typical = np.argsort(-within.round(6), kind="stable")
    return FoundGroup(
        rows=tuple(by_id[new[typical]].tolist()),
        trusted_rows=tuple(by_id[known].tolist()),
        strength=strength,
        nearest=furthest / strength if strength > 0 else 1.0,
        statistic=statistic,
        p_value=p_value,
        q_value=q_value,
    )
