"""The natural-gradient fit, streaming: a sample of the rows sets the geometry, then one pass sums row gradients into subsets.

    sample of b rows --> basis B, factors A and S, yardstick
    every row, in batches of like length --> c_i G_i added to its d subsets

One batch of states is held at a time, and K x r x D floats of sums, whatever the number of rows. Sums over shards of the rows add up. Where
passes are kept (`work`), one that was interrupted goes on from its last shard, and comes to the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, Features, Rows
from poisonwatch.checkpoints.passes import Filled, Trail
from poisonwatch.checkpoints.store import Work
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import Encoded, batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.background import Yardstick
from poisonwatch.stride.operators import BASIS_ROWS, Basis, Moments, Preconditioner, add_to_subsets, fit_basis, row_gradients
from poisonwatch.stride.reference_cache import keep_statistics, load_statistics
from poisonwatch.stride.row_statistics import Statistics, measure_statistics
from poisonwatch.stride.similarity import views_of


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is set before the pass over the rows, and the gradients `G` (m, r, D) of the rows `known` (m,), which need none any more.

    `own` (m,) is a known row's place among the yardstick's conversations, -1 where it is none of them.
    """

    basis: Basis
    preconditioner: Preconditioner
    yardstick: Yardstick
    known: Rows
    G: Tensor
    own: Rows

    @classmethod
    def of(cls, basis: Basis, moments: Moments, damping: float, known: Rows, G: Tensor, sample: Rows) -> "Geometry":
        """With the known rows `sample` (b,) as the yardstick's conversations."""
        preconditioner = Preconditioner(moments, damping)
        place = {row: i for i, row in enumerate(known.tolist())}
        at = torch.tensor([place[row] for row in sample.tolist()], device=G.device)
        own = np.full(len(known), -1)
        own[at.cpu().numpy()] = np.arange(len(sample))
        return cls(basis, preconditioner, Yardstick.of(G[at], preconditioner), known, G, own)


@dataclass(slots=True)
class SubsetSums:
    """`G` (K, r, D) sums c_i G_i over the rows of each subset, float32.

    For the rows seen: `centre` (n,) in spreads, and `spread` (n,), both by the yardstick; 0 for all others.
    """

    G: Tensor
    centre: Array
    spread: Array

    def __add__(self, other: "SubsetSums") -> "SubsetSums":
        """The sums of two shards: of different rows."""
        return SubsetSums(self.G + other.G, self.centre + other.centre, self.spread + other.spread)


def sum_subsets(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    membership: Membership,
    geometry: Geometry,
    token_budget: int,
    progress: Progress = silent,
    rows: Rows | None = None,
    views: Features | None = None,
    work: Work | None = None,
) -> SubsetSums:
    """Sum the given `rows` (all by default; a shard otherwise) into their subsets. Gradients that are known are not made again."""
    n = len(encoded)
    shard = np.arange(n) if rows is None else rows
    sums = SubsetSums(torch.zeros(membership.K, geometry.basis.r, model.width, device=model.device), np.zeros(n), np.zeros(n))
    subsets = torch.from_numpy(membership.subsets)
    slot = np.full(n, -1)
    slot[geometry.known] = np.arange(len(geometry.known))

    def take(G: Tensor, of: Rows, own: Tensor | None) -> None:
        centre, spread = geometry.yardstick.measure(G, own)
        sums.centre[of], sums.spread[of] = (centre / spread).cpu().numpy(), spread.cpu().numpy()
        add_to_subsets(sums.G, G / spread[:, None, None].to(G.dtype), subsets[of])

    known = shard[slot[shard] >= 0]
    for part in np.array_split(known, max(1, -(-len(known) // 64))):
        if len(part):
            at = torch.from_numpy(slot[part]).to(model.device)
            take(geometry.G[at], part, torch.from_numpy(geometry.own[slot[part]]).to(model.device))
    rest = shard[slot[shard] < 0]
    filled: Filled = {"G": (sums.G, membership.subsets[rest]), "centre": (sums.centre, rest), "spread": (sums.spread, rest)}
    if views is not None:
        filled["views"] = (views, rest)
    trail = Trail(work, "fit", filled)
    left = trail.left(batches([encoded[i] for i in rest], token_budget, model.device))
    for batch in progress(left, "fit", len(rest) - trail.rows, lambda batch: len(batch.rows)):
        seen = model.state_gradients(batch)
        of = rest[batch.rows.numpy()]
        take(row_gradients(geometry.basis, seen), of, None)
        if views is not None:
            views[of] = views_of(geometry.basis, seen.z, batch)
    return sums


def _statistics(
    model: FrozenModel, encoded: Sequence[Encoded], r: int, stride: StrideConfig, key: str | None, progress: Progress, work: Work
) -> Statistics:
    """Those kept under the key, or measured now (and kept, where there is a key)."""
    found = load_statistics(key, model.device) if key else None
    if found is None:
        label = "sample" if key is None else "trusted"
        basis = work.kept("basis", Basis, lambda: fit_basis(model, encoded[:BASIS_ROWS], r, stride.token_budget, progress))
        found = measure_statistics(model, encoded, basis, stride.token_budget, label, progress, work)
        if key and keep_statistics(key, found):
            work.drop(*work.names(f"{label}-"))
    return found
