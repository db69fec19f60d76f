"""Which branches of a tree are news: what new rows do and trusted rows do not.

A branch of m rows, a of them new, scores

    LLR x E^(1/4) ,   E = (m - 1) mean cos

The first factor is the Bernoulli likelihood ratio of its share of new rows, a / m, against that of
the rest (Kulldorff, Communications in Statistics 26, 1997; over trees: Kulldorff, Fang and Walsh,
Biometrics 59, 2003); 0 where it is no newer than the rest: what trusted rows do, too, is no news.
The second is the energy that the rows' pushes have together, beyond that of rows which have nothing
to do with each other: about 1 at most for ordinary rows, however many.

Calibration shuffles which rows are new and searches again. It assumes that new rows without a plant
are like trusted ones: honest rows of a kind that nothing trusted covers are news, and are found.
Without trusted rows nothing says what is news: branches are ranked by their energy alone, and have
no p-values.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from poisonwatch.arrays import Array, Integers
from poisonwatch.discovery.tree import Tree

Bools = NDArray[np.bool_]

# New rows of a group, at least, and what share of all rows it may hold.
LEAST_GROUP = 4
LARGEST_SHARE = 0.5

# Of two groups of which one lies within the other, the lesser goes where it has more than this
# share of the rows.
MOST_OVERLAP = 0.5

# Groups that are named, whether or not they are beyond chance.
MOST_GROUPS = 50

# What energy counts beside the likelihood ratio.
ENERGY_POWER = 0.25

SHUFFLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The `branches` (g,) that were chosen of a `tree`, best first, with their `scores`, p- and
    q-values (g,), and the `rule` that calibrates them, in words.
    """

    tree: Tree
    branches: Integers
    scores: Array
    p: Array
    q: Array
    rule: str


def search_news(
    tree: Tree, trusted: Bools, alike: Float[Array, " branches"], seed: int = 0
) -> Search:
    """The branches that hold news, of rows that are `trusted` (n,) or new; `alike` (n - 1,) are the
    mean cosines of the branches' pairs.
    """
    energy = np.maximum((tree.size - 1) * alike, 0.0)
    energy[tree.size > LARGEST_SHARE * len(trusted)] = 0.0
    labels = (~trusted[None]).astype(np.float64)
    if not trusted.any():
        scores = np.where(tree.size >= LEAST_GROUP, energy, 0.0)
        branches = choose_branches(tree, scores, tree.size.astype(np.float64))
        ones = np.ones(len(branches))
        rule = "no trusted rows: nothing says which groups are news"
        return Search(
            tree=tree, branches=branches, scores=scores[branches], p=ones, q=ones, rule=rule
        )
    weight = energy**ENERGY_POWER
    new = tree.count(labels)[0]
    scores = weight * compute_likelihood_ratios(tree, new[None], len(trusted))[0]
    branches = choose_branches(tree, scores, new)
    draw = np.random.default_rng(seed)
    shuffled = np.stack([draw.permutation(labels[0]) for _ in range(SHUFFLES)])
    counts = tree.count(shuffled)
    null = weight * compute_likelihood_ratios(tree, counts, len(trusted))
    found = scores[branches]
    # Groups by chance that score below all found ones are compared with none.
    least = float(found[-1]) if len(found) else np.inf
    chosen = [null[k, choose_branches(tree, null[k], counts[k], least)] for k in range(SHUFFLES)]
    p = _compute_p_values(found, null.max(axis=1))
    return Search(
        tree=tree,
        branches=branches,
        scores=found,
        p=p,
        q=compute_q_values(found, np.concatenate(chosen), p),
        rule=f"which rows are new, shuffled {SHUFFLES} times",
    )


def compute_likelihood_ratios(
    tree: Tree, new: Float[Array, "p branches"], n: int
) -> Float[Array, "p branches"]:
    """Log-likelihood ratios (p, n - 1) of branches with so many new rows, under p labellings of n
    rows; 0 where a branch is no newer than the rest, or has too few new rows to be a group.
    """
    total = new[:, -1:]  # the last branch holds all rows
    size = tree.size.astype(np.float64)[None]
    outside = n - size
    with np.errstate(divide="ignore", invalid="ignore"):
        share, rest, overall = new / size, (total - new) / outside, total / n
        gain = (
            _log_likelihood(new, size, share)
            + _log_likelihood(total - new, outside, rest)
            - _log_likelihood(new, size, overall)
            - _log_likelihood(total - new, outside, overall)
        )
    newer = (new >= LEAST_GROUP) & (outside > 0) & (share > overall)
    ratios: Array = np.where(newer, gain, 0.0)
    return ratios


def _log_likelihood(hits: Array, size: Array, share: Array) -> Array:
    misses = size - hits
    of_hits = np.where(hits > 0, hits * np.log(share), 0.0)
    of_misses = np.where(misses > 0, misses * np.log1p(-share), 0.0)
    value: Array = of_hits + of_misses
    return value


def choose_branches(
    tree: Tree,
    scores: Float[Array, " branches"],
    new: Float[Array, " branches"],
    least: float = 0.0,
) -> Integers:
    """The branches (g,) of the highest scores (n - 1,), best first, without those that nearly are a
    better one: `new` (n - 1,) are the rows that count. None scores below `least`, or 0.
    """
    left = scores.copy()
    chosen: list[int] = []
    while len(chosen) < MOST_GROUPS:
        best = int(left.argmax())
        if left[best] <= 0 or left[best] < least:
            break
        chosen.append(best)
        within = (tree.start >= tree.start[best]) & (tree.stop <= tree.stop[best])
        around = (tree.start <= tree.start[best]) & (tree.stop >= tree.stop[best])
        lesser, greater = np.minimum(new, new[best]), np.maximum(new, new[best])
        left[(within | around) & (lesser > MOST_OVERLAP * greater)] = 0.0
    return np.array(chosen, dtype=np.int64)


def _compute_p_values(
    scores: Float[Array, " g"], highest: Float[Array, " p"]
) -> Float[Array, " g"]:
    """The chance that the best group of a batch without news scores as high (g,), by the `highest`
    of p such batches.
    """
    ordered = np.sort(highest)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    p: Array = (1 + above) / (1 + len(ordered))
    return p


def compute_q_values(
    scores: Float[Array, " g"], null: Float[Array, " h"], p: Float[Array, " g"]
) -> Float[Array, " g"]:
    """q-values (g,) of falling scores with family-wise `p` (g,): how many groups of a batch without
    news score as high, by all groups `null` (h,) of SHUFFLES of them, over how many do here.

    Never below the first group's p-value: a batch without news has groups at that rate only.
    """
    if not len(scores):
        return scores
    ordered = np.sort(null)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    share = (1 + above) / (1 + SHUFFLES) / np.arange(1, len(scores) + 1)
    falling = np.minimum.accumulate(share[::-1])[::-1]
    q: Array = np.clip(falling, p[0], 1.0)
    return q
