"""Rows joined by how alike they push the model: a tree of groups within groups.

Average linkage (Sokal and Michener, Univ. Kansas Sci. Bull. 38, 1958) on the cosines of
`directions`. In the order of the tree's leaves every branch is a run of rows, so that what a branch
holds of anything is a difference of two running sums, whatever the number of things counted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from poisonwatch.arrays import Array, Features, Integers, RowIndices


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

    def get_rows(self, branch: int) -> RowIndices:
        """The rows of a branch, in the order of the leaves."""
        return self.order[self.start[branch] : self.stop[branch]]

    def count(self, values: Float[Array, "p n"]) -> Float[Array, "p branches"]:
        """Sums (p, n - 1) over each branch's rows of p values of every row (p, n)."""
        running = np.zeros((len(values), len(self.order) + 1))
        np.cumsum(values[:, self.order], axis=1, out=running[:, 1:])
        sums: Array = running[:, self.stop] - running[:, self.start]
        return sums


def grow_tree(cosines: Float32[Features, "n n"]) -> Tree:
    """The tree of n rows, two at least, from the cosines (n, n) of their pairs."""
    distances = squareform(1.0 - cosines, checks=False)
    joined = linkage(distances, "average")
    return _lay_out(joined[:, :2].astype(np.int64))


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
