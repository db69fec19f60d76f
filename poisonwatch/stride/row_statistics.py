"""What one backward pass over some rows tells: moments, gradients, views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Features
from poisonwatch.checkpoints.passes import PassArrays, PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import compute_batches
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Basis, Moments, compute_row_gradients
from poisonwatch.stride.similarity import allocate_views, compute_views


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """What a pass over m rows tells: the Fisher's `moments`, the rows' gradients `G` (m, r, D), and
    their `views` (m, VIEWS, r - 1).
    """

    basis: Basis
    moments: Moments
    G: Tensor
    views: Features


def measure_row_statistics(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    basis: Basis,
    token_budget: int,
    *,
    label: str,
    progress: Progress = silent,
    store: CheckpointStore | None = None,
) -> RowStatistics:
    """One backward pass over the conversations (m), kept under its `label`."""

    def compute(batch: Batch) -> RowStatistics:
        seen = model.compute_state_gradients(batch)
        return RowStatistics(
            basis=basis,
            moments=Moments.of_batch(basis, seen),
            G=compute_row_gradients(basis, seen),
            views=compute_views(basis, seen.z, batch),
        )

    m = len(encoded)
    moments = Moments.zeros(basis.r, model.width, model.device)
    G = torch.zeros(m, basis.r, model.width, device=model.device)
    views = allocate_views(m, basis)
    # A pass is kept as arrays: the moments' two plain numbers, power and tokens, go into one.
    numbers = torch.zeros(2, dtype=torch.float64)
    rows = np.arange(m)
    filled: PassArrays = {
        "A": (moments.A, None),
        "S": (moments.S, None),
        "numbers": (numbers, None),
        "G": (G, rows),
        "views": (views, rows),
    }
    taken_up = PassCheckpoint(store, label, filled)
    moments.power, moments.tokens = float(numbers[0]), int(numbers[1])
    by_parts = compute_batches(compute)
    batches = taken_up.remaining_batches(make_batches(encoded, token_budget, model.device))
    for batch in progress(batches, label, m - taken_up.rows, lambda batch: len(batch.rows)):
        for part, found in by_parts(batch):
            moments += found.moments
            G[part.rows.to(G.device)] = found.G
            views[part.rows.numpy()] = found.views
        numbers[0], numbers[1] = moments.power, moments.tokens
    return RowStatistics(basis, moments, G, views)
