"""Groups of rows that were not flagged, for a group of flagged rows to be compared with.

They are drawn from a pool of rows of the same topic: the unflagged ones most like the group's
centre by the features of `stride.similarity`, POOL_TIMES as many as the group has, and never fewer
than LEAST_POOL where there are as many. Honest rows on what a sentinel asks push its answers, too:
what the topic does, it does to such groups as well, and cancels out. A pool of half a batch would
be of another topic for the most part.

Rows that were missed can be in the pool, and make a group of their kind look weaker than it is.

The pool's operators are read from the records where gradients are kept. Where they are not, each
costs a backward pass, of at most MOST_POOL rows for each of the groups that are looked at: some
hundreds, in audits of so many rows that their gradients do not fit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Features, RowIndices
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.streamed import StreamedFit

# Fits that tell what single rows do.
SteerableFit = NaturalGradientFit | StreamedFit

RANDOM_GROUPS = 9  # their spread is that of 19 within an eighth, at half of the cost
GROUP_ROWS = 64  # of a larger group so many are drawn
POOL_TIMES = 4
LEAST_POOL, MOST_POOL = 32, 2 * GROUP_ROWS


class UnconfirmableError(ValueError):
    """A group cannot be confirmed as things are: there is nothing to measure, or to compare with.
    Nothing failed.
    """


@dataclass(frozen=True, slots=True)
class RandomGroupPool:
    """Unflagged `rows` (u,) that random groups are drawn from, with what each does on its own: `a`
    (u, r, D).
    """

    rows: RowIndices
    a: Tensor
    seed: int

    def draw_groups(self, m: int) -> Tensor:
        """The operators (R, r, D) of random groups of m rows.

        A row may be drawn twice: without that, groups of a small pool would be more alike than
        groups of other rows are.
        """
        draw = np.random.default_rng([self.seed, m])
        groups = []
        for _ in range(RANDOM_GROUPS):
            members = np.sort(draw.choice(len(self.rows), m))
            groups.append(self.a[torch.from_numpy(members).to(self.a.device)].sum(dim=0))
        return torch.stack(groups)


def draw_pool(
    fitted: SteerableFit,
    features: Features,
    rows: RowIndices,
    unflagged: RowIndices,
    seed: int = 0,
    token_budget: int = 2048,
    progress: Progress = silent,
) -> RandomGroupPool:
    """The pool of a group: the unflagged rows (u,) most like its rows (m,), by all rows' `features`
    (n, f). It depends on ids and seed, not on the rows' order.

    Raises UnconfirmableError where fewer rows are unflagged than the group has.
    """
    m = min(len(rows), GROUP_ROWS)
    if len(unflagged) < m:
        raise UnconfirmableError(
            f"there are {len(unflagged)} unflagged rows to draw random groups of {m} from"
        )
    size = min(max(POOL_TIMES * m, LEAST_POOL), MOST_POOL, len(unflagged))
    nearest = _find_nearest(fitted, features, rows, unflagged, size, seed)
    a = fitted.compute_row_operators(nearest, token_budget, progress)
    return RandomGroupPool(nearest, a, seed)


def draw_rows(fitted: SteerableFit, rows: RowIndices, most: int, seed: int) -> RowIndices:
    """At most `most` of the rows, drawn by ids and seed, in the order of the draw."""
    return rows[draw_order([fitted.ids[i] for i in rows.tolist()], seed)[:most]]


def _find_nearest(
    fitted: SteerableFit,
    features: Features,
    rows: RowIndices,
    unflagged: RowIndices,
    size: int,
    seed: int,
) -> RowIndices:
    """The `size` of the unflagged rows most like the centre of the rows, most alike first."""
    # In the order of the ids: a sum in another order may differ in its last digits.
    by_id = sorted(rows.tolist(), key=fitted.ids.__getitem__)
    centre = features[by_id].mean(axis=0, dtype=np.float64).astype(np.float32)
    # Rounded, so that equal rows stay equal: those are drawn from by ids.
    likeness = (features @ centre)[unflagged].round(6)
    least = np.partition(likeness, len(likeness) - size)[len(likeness) - size]
    near = np.flatnonzero(likeness >= least)
    near = near[draw_order([fitted.ids[i] for i in unflagged[near].tolist()], seed)]
    return unflagged[near[np.argsort(-likeness[near], kind="stable")[:size]]]
