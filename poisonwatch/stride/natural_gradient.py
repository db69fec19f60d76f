"""The natural-gradient fit, streaming: a sample of the rows sets the geometry, then one pass sums
row gradients into subsets.

    sample of b rows --> basis B, factors A and S, yardstick
    every row, in batches of like length --> c_i G_i added to its d subsets

One batch of states is held at a time, and K x r x D floats of sums, whatever the number of rows.
Sums over shards of the rows add up. Where passes are kept (`work`), one that was interrupted goes
on from its last shard, and comes to the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.checkpoints.passes import PassArrays, PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.background import Background
from poisonwatch.stride.operators import (
    BASIS_ROWS,
    Basis,
    Moments,
    Preconditioner,
    add_to_subsets,
    compute_row_gradients,
    fit_basis,
)
from poisonwatch.stride.reference_cache import load_row_statistics, save_row_statistics
from poisonwatch.stride.row_statistics import RowStatistics, measure_row_statistics
from poisonwatch.stride.similarity import compute_views


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is set before the pass over the rows, and the gradients `G` (m, r, D) of the rows
    `known` (m,), which need none any more.

    `own` (m,) is a known row's place among the yardstick's conversations, -1 where it is none of
    them.
    """

    basis: Basis
    preconditioner: Preconditioner
    yardstick: Background
    known: RowIndices
    G: Tensor
    own: RowIndices

    @classmethod
    def of(
        cls,
        basis: Basis,
        moments: Moments,
        damping: float,
        known: RowIndices,
        G: Tensor,
        sample: RowIndices,
    ) -> "Geometry":
        """With the known rows `sample` (b,) as the yardstick's conversations."""
        preconditioner = Preconditioner(moments, damping)
        place = {row: i for i, row in enumerate(known.tolist())}
        at = torch.tensor([place[row] for row in sample.tolist()], device=G.device)
        own = np.full(len(known), -1)
        own[at.cpu().numpy()] = np.arange(len(sample))
        return cls(basis, preconditioner, Background.of(G[at], preconditioner), known, G, own)


@dataclass(slots=True)
class SubsetSums:
    """`G` (K, r, D) sums c_i G_i over the rows of each subset, float32.

    For the rows seen: `centre` (n,) in spreads, and `spread` (n,), both by the yardstick; 0 for all
    others.
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
    rows: RowIndices | None = None,
    views: Features | None = None,
    work: CheckpointStore | None = None,
) -> SubsetSums:
    """Sum the given `rows` (all by default; a shard otherwise) into their subsets. Gradients that
    are known are not made again.
    """
    n = len(encoded)
    shard = np.arange(n) if rows is None else rows
    sums = SubsetSums(
        torch.zeros(membership.K, geometry.basis.r, model.width, device=model.device),
        np.zeros(n),
        np.zeros(n),
    )
    subsets = torch.from_numpy(membership.subsets)
    slot = np.full(n, -1)
    slot[geometry.known] = np.arange(len(geometry.known))

    def take(G: Tensor, of: RowIndices, own: Tensor | None) -> None:
        centre, spread = geometry.yardstick.measure(G, own)
        sums.centre[of], sums.spread[of] = (centre / spread).cpu().numpy(), spread.cpu().numpy()
        add_to_subsets(sums.G, G / spread[:, None, None].to(G.dtype), subsets[of])

    known = shard[slot[shard] >= 0]
    for part in np.array_split(known, max(1, -(-len(known) // 64))):
        if len(part):
            at = torch.from_numpy(slot[part]).to(model.device)
            take(geometry.G[at], part, torch.from_numpy(geometry.own[slot[part]]).to(model.device))
    rest = shard[slot[shard] < 0]
    filled: PassArrays = {
        "G": (sums.G, membership.subsets[rest]),
        "centre": (sums.centre, rest),
        "spread": (sums.spread, rest),
    }
    if views is not None:
        filled["views"] = (views, rest)
    trail = PassCheckpoint(work, "fit", filled)
    left = trail.remaining_batches(
        make_batches([encoded[i] for i in rest], token_budget, model.device)
    )
    for batch in progress(left, "fit", len(rest) - trail.rows, lambda batch: len(batch.rows)):
        seen = model.compute_state_gradients(batch)
        of = rest[batch.rows.numpy()]
        take(compute_row_gradients(geometry.basis, seen), of, None)
        if views is not None:
            views[of] = compute_views(geometry.basis, seen.z, batch)
    return sums


def load_or_measure_statistics(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    r: int,
    stride: StrideConfig,
    key: str | None,
    progress: Progress,
    work: CheckpointStore,
) -> RowStatistics:
    """Those kept under the key, or measured now (and kept, where there is a key)."""
    found = load_row_statistics(key, model.device) if key else None
    if found is None:
        label = "sample" if key is None else "trusted"
        basis = work.get_or_compute(
            "basis",
            Basis,
            lambda: fit_basis(model, encoded[:BASIS_ROWS], r, stride.token_budget, progress),
        )
        found = measure_row_statistics(
            model, encoded, basis, stride.token_budget, label, progress, work
        )
        if key and save_row_statistics(key, found):
            work.delete(*work.names(f"{label}-"))
    return found
