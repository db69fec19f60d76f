"""Rows joined by how alike they are: a tree of groups within groups.

Rows are alike where they push the model the same way, and a little where the model's states are
alike, too:

    k(i, j) = ( cos(i, j) + STATES <phi_i, phi_j> ) / (1 + STATES)

States alone tell topics apart, pushes alone tell them apart less well; together they divide rows of
one topic by what they teach. Ward's linkage (JASA 58, 1963) joins those whose joint centre loses
least: distances to a centre do not change where all rows of a topic have a push in common.

In the order of the tree's leaves every branch is a run of rows, so that what a branch holds of
anything is a difference of two running sums, whatever the number of things counted.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from poisonwatch.arrays import Array, Features, Integers, RowIndices

# What a likeness of states counts beside one of pushes.
STATES = 0.1


@dataclass(frozen=True, slots=True)
class Tree:
    """The n - 1 branches of a tree of n rows, each after those within it.

    `order` (n,) are the rows in the order of the leaves; branch b holds those at `start[b]` to
    `stop[b]`. `children` (n - 1, 2) are what it joined: leaves k < n, or branch k - n.
    """

    order: RowIndices
    start: Integers
    stop: Integers
    children: Integers

    @property
    def size(self) -> Integers:
        """How many rows each branch holds (n - 1,)."""
        return self.stop - self.start

    def get_rows(self, branch: int) -> RowIndices:
        """The rows of a branch, in the order of the leaves."""
        return self.order[self.start[branch] : self.stop[branch]]

    def count(self, values: Float[Array, "p n"]) -> Float[Array, "p branches"]:
        """Sums (p, n - 1) over each branch's rows of p values of every row (p, n)."""
        running = np.zeros((len(values), len(self.order) + 1))
        np.cumsum(values[:, self.order], axis=1, out=running[:, 1:])
        sums: Array = running[:, self.stop] - running[:, self.start]
        return sums

    def average_pairs(self, cosines: Float32[Features, "n n"]) -> Float[Array, " branches"]:
        """The mean (n - 1,) over each branch's pairs of rows of their cosines (n, n)."""
        ordered = cosines[np.ix_(self.order, self.order)]
        n = len(self.order)
        # Every pair is met once, where the branches of its two rows are joined.
        sums = np.zeros(2 * n - 1)
        for branch, (left, right) in enumerate(self.children.tolist()):
            middle = self.start[branch] + (1 if left < n else self.size[left - n])
            across = ordered[self.start[branch] : middle, middle : self.stop[branch]]
            sums[n + branch] = sums[left] + sums[right] + across.sum(dtype=np.float64)
        means: Array = sums[n:] / (self.size * (self.size - 1) / 2)
        return means


def grow_tree(
    cosines: Float32[Features, "n n"], features: Float32[Features, "n f"] | None = None
) -> Tree:
    """The tree of n rows, two at least, from the cosines (n, n) of their pushes and the features
    (n, f) of their states, where these are known.
    """
    apart = squareform(2.0 - 2.0 * _mix_likeness(cosines, features), checks=False)
    # Rounding may put a row below its own distance.
    joined = linkage(np.sqrt(np.maximum(apart, 0.0)), "ward")
    return _lay_out(joined[:, :2].astype(np.int64))


def _mix_likeness(
    cosines: Float32[Features, "n n"], features: Float32[Features, "n f"] | None
) -> Float32[Features, "n n"]:
    if features is None or not features.shape[1]:
        return cosines
    alike = (cosines + np.float32(STATES) * (features @ features.T)) / np.float32(1 + STATES)
    return cast(Features, alike)


def _lay_out(children: Int64[Integers, "branches 2"]) -> Tree:
    branches = len(children)
    n = branches + 1
    size = np.ones(n + branches, dtype=np.int64)
    for branch, (left, right) in enumerate(children.tolist()):
        size[n + branch] = size[left] + size[right]
    # From the root down: where each part begins.
    begin = np.zeros(n + branches, dtype=np.int64)
    for branch in range(branches - 1, -1, -1):
        left, right = children[branch].tolist()
        begin[left] = begin[n + branch]
        begin[right] = begin[left] + size[left]
    order = np.empty(n, dtype=np.int64)
    order[begin[:n]] = np.arange(n)
    return Tree(order, begin[n:], begin[n:] + size[n:], children)
