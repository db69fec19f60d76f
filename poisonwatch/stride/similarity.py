"""Which rows are alike, from the frozen model's own states: what similar rows do to a sentinel is
similar, too.

Three views of a row are taken below the split: the mean coordinates U^T z / rms(z) over the
positions that predict the answer, over the answer, and over the whole conversation. Each is centred
over the rows of the audit and scaled to length one, so that the inner product of two rows is the
mean of three cosines: the state similarity, in [-1, 1]. `recovery.gaussian_process` puts its kernel
on it.

A basis of one dimension (r = 1) has no directions to look along: then nothing is known of
similarity.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from poisonwatch.arrays import Features
from poisonwatch.checkpoints.passes import PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel, find_answer_positions
from poisonwatch.model.halving import compute_batches
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Basis, normalise_rms

VIEWS = 3

# The view over the answer's own positions.
ANSWER_VIEW = 1


def compute_views(
    basis: Basis, z: Float[Tensor, "b T D"], batch: Batch
) -> Float32[Features, "m views directions"]:
    """The three mean coordinates (m, VIEWS, r - 1) of a batch's rows from states z (b, T, D);
    rejected conversations do not count.
    """
    m = len(batch.rows)
    coordinates = normalise_rms(z[:m]) @ basis.directions
    predicting, _ = find_answer_positions(batch)
    views = []
    for mask in (predicting, batch.answer, batch.attention_mask.bool()):
        # Rejected conversations stand behind the m rows.
        weight = mask[:m].to(coordinates.dtype)[..., None]
        views.append((coordinates * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0))
    return cast(Features, torch.stack(views, dim=1).float().cpu().numpy())


def survey_views(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    basis: Basis,
    token_budget: int,
    *,
    progress: Progress = silent,
    store: CheckpointStore | None = None,
) -> Float32[Features, "n views directions"]:
    """The views (n, VIEWS, r - 1) of every row, 0 where its states are not finite; runs the blocks
    below the split only.
    """

    def compute(batch: Batch) -> Features:
        of_rows = compute_views(basis, model.compute_states(batch), batch)
        of_rows[~np.isfinite(of_rows).all(axis=(1, 2))] = 0.0
        return of_rows

    n = len(encoded)
    views = allocate_views(n, basis)
    by_parts = compute_batches(compute)
    taken_up = PassCheckpoint(store, "survey", {"views": (views, np.arange(n))})
    batches = taken_up.remaining_batches(make_batches(encoded, token_budget, model.device))
    for batch in progress(batches, "survey", n - taken_up.rows, lambda batch: len(batch.rows)):
        for part, of_rows in by_parts(batch):
            views[part.rows.numpy()] = of_rows
    return views


def compute_features(
    views: Float32[Features, "n views directions"],
) -> Float32[Features, "n views*directions"]:
    """phi (n, VIEWS x (r - 1)), of length one, from the views (n, VIEWS, r - 1) of all rows.
    Without directions (r = 1): no columns.
    """
    # In float64: in float32 the mean's last digit depends on the rows' order.
    phi = views - views.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Rows that do not differ from the mean have length 0, and stay there.
    lengths = np.linalg.norm(phi, axis=2, keepdims=True)
    phi /= np.maximum(lengths, np.finfo(np.float32).tiny) * VIEWS**0.5
    flat: Features = phi.reshape(len(views), -1)
    return flat


def allocate_views(n: int, basis: Basis) -> Float32[Features, "n views directions"]:
    """Room for the views of n rows."""
    return np.zeros((n, VIEWS, basis.r - 1), dtype=np.float32)
