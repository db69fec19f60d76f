"""What one backward pass over some rows tells: moments, gradients, views, or faults alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from poisonwatch.arrays import Features
from poisonwatch.checkpoints.passes import PassArrays, PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.faults import Faults, find_unanswered, leave_out_faulty, list_measured
from poisonwatch.model.free_memory import return_main_memory
from poisonwatch.model.frozen import FrozenModel, StateGradients
from poisonwatch.model.halving import compute_batches
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Basis, Moments, compute_row_gradients
from poisonwatch.stride.similarity import allocate_views, compute_views


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """What a pass over m rows tells at one of the model's splits: the Fisher's `moments`, the rows'
    gradients `G` (m, r, D), and their `views` (m, VIEWS, r - 1).
    """

    basis: Basis
    moments: Moments
    G: Tensor
    views: Features

    @classmethod
    def allocate(cls, m: int, basis: Basis, model: FrozenModel) -> "SplitStatistics":
        """Room for those of m rows."""
        return cls(
            basis=basis,
            moments=Moments.zeros(basis.r, model.width, model.device),
            G=torch.zeros(m, basis.r, model.width, device=model.device),
            views=allocate_views(m, basis),
        )

    @classmethod
    def of_batch(cls, basis: Basis, seen: StateGradients, batch: Batch) -> "SplitStatistics":
        """Of one batch's rows."""
        return cls(
            basis=basis,
            moments=Moments.of_batch(basis, seen),
            G=compute_row_gradients(basis, seen),
            views=compute_views(basis, seen.z, batch),
        )


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """What a pass over m rows tells at each of the model's `splits`. Rows that have `faults` (m,)
    are in no sum, and 0 elsewhere.
    """

    splits: tuple[SplitStatistics, ...]
    faults: Faults


def measure_row_statistics(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    bases: Sequence[Basis],
    token_budget: int,
    *,
    label: str,
    progress: Progress = silent,
    store: CheckpointStore | None = None,
) -> RowStatistics:
    """One backward pass over the conversations (m), kept under its `label`; with one of the `bases`
    for each of the model's splits.
    """

    def compute(batch: Batch) -> RowStatistics:
        seen, found = leave_out_faulty(model.compute_state_gradients(batch))
        splits = tuple(
            SplitStatistics.of_batch(basis, at_split, batch)
            for basis, at_split in zip(bases, seen.splits, strict=True)
        )
        return RowStatistics(splits, found)

    m = len(encoded)
    splits = tuple(SplitStatistics.allocate(m, basis, model) for basis in bases)
    # A pass is kept as arrays: the moments' two plain numbers, power and tokens, go into one.
    numbers = torch.zeros(len(splits), 2, dtype=torch.float64)
    faults = find_unanswered(encoded)
    answered = list_measured(faults)
    filled: PassArrays = {"numbers": (numbers, None), "faults": (faults, answered)}
    for number, split in enumerate(splits):
        filled[f"A{number}"] = (split.moments.A, None)
        filled[f"S{number}"] = (split.moments.S, None)
        filled[f"G{number}"] = (split.G, answered)
        filled[f"views{number}"] = (split.views, answered)
    taken_up = PassCheckpoint(store, label, filled)
    for split, (power, tokens) in zip(splits, numbers.tolist(), strict=True):
        split.moments.power, split.moments.tokens = power, int(tokens)
    by_parts = compute_batches(compute)
    batches = taken_up.remaining_batches(
        make_batches([encoded[i] for i in answered], token_budget, model.device)
    )
    left = len(answered) - taken_up.rows
    for batch in progress(batches, label, left, lambda batch: len(batch.rows)):
        for part, found in by_parts(batch):
            rows = answered[part.rows.numpy()]
            for split, more in zip(splits, found.splits, strict=True):
                moments = split.moments
                moments += more.moments
                split.G[torch.from_numpy(rows).to(split.G.device)] = more.G
                split.views[rows] = more.views
            faults[rows] = found.faults
        for number, split in enumerate(splits):
            numbers[number, 0], numbers[number, 1] = split.moments.power, split.moments.tokens
    return_main_memory()
    return RowStatistics(splits, faults)


def survey_faults(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    token_budget: int,
    *,
    progress: Progress = silent,
    store: CheckpointStore | None = None,
) -> UInt8[Faults, " n"]:
    """The faults (n,) of all rows, from one backward pass over them."""

    def compute(batch: Batch) -> Faults:
        return leave_out_faulty(model.compute_state_gradients(batch))[1]

    faults = find_unanswered(encoded)
    answered = list_measured(faults)
    by_parts = compute_batches(compute)
    taken_up = PassCheckpoint(store, "faults", {"faults": (faults, answered)})
    batches = taken_up.remaining_batches(
        make_batches([encoded[i] for i in answered], token_budget, model.device)
    )
    left = len(answered) - taken_up.rows
    for batch in progress(batches, "check", left, lambda batch: len(batch.rows)):
        for part, found in by_parts(batch):
            faults[answered[part.rows.numpy()]] = found
    return faults
