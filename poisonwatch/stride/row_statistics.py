from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Features
from poisonwatch.checkpoints.passes import PassArrays, PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
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
    label: str,
    progress: Progress = silent,
    work: CheckpointStore | None = None,
) -> RowStatistics:
    """One backward pass over the conversations (m), kept under its `label`."""
    m = len(encoded)
    moments = Moments.zeros(basis.r, model.width, model.device)
    numbers = torch.zeros(2, dtype=torch.float64)  # the moments' power and tokens
    G = torch.zeros(m, basis.r, model.width, device=model.device)
    views = allocate_views(m, basis)
    rows = np.arange(m)
    sums: PassArrays = {"A": (moments.A, None), "S": (moments.S, None), "numbers": (numbers, None)}
    trail = PassCheckpoint(work, label, {**sums, "G": (G, rows), "views": (views, rows)})
    moments.power, moments.tokens = float(numbers[0]), int(numbers[1])
    left = trail.remaining_batches(make_batches(encoded, token_budget, model.device))
    for batch in progress(left, label, m - trail.rows, lambda batch: len(batch.rows)):
        seen = model.compute_state_gradients(batch)
        moments.add(basis, seen)
        numbers[0], numbers[1] = moments.power, moments.tokens
        G[batch.rows.to(G.device)] = compute_row_gradients(basis, seen)
        views[batch.rows.numpy()] = compute_views(basis, seen.z, batch)
    return RowStatistics(basis, moments, G, views)
