"""The natural-gradient fit of subsets that rows share: a sample of the rows sets the geometry, then
one pass sums row gradients into subsets. Where every row is a subset of its own, `streamed` needs
no sums.

    sample of b rows --> basis B, factors A and S, background
    every row, in batches of similar length --> c_i G_i added to its d subsets

One batch of states is held at a time, and K x r x D floats of sums, whatever the number of rows.
Where passes are kept (`checkpoints`), one that was interrupted goes on from its last shard, and
comes to the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from scipy.sparse import csr_array
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.checkpoints.passes import PassArrays, PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.fault import Fault
from poisonwatch.model.faults import (
    Faults,
    find_unanswered,
    leave_out_faulty,
    list_faulty,
    list_measured,
    require_measurable,
)
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import compute_batches
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.designs import draw_by_design
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.geometry import Geometry, gather_reference
from poisonwatch.stride.operators import (
    add_to_subsets,
    compute_row_gradients,
    solve_operators,
)
from poisonwatch.stride.problem import FitProblem
from poisonwatch.stride.similarity import (
    allocate_views,
    compute_features,
    compute_views,
    survey_views,
)

# Known gradients that are summed at a time: each part is copied, divided by its spreads.
KNOWN_AT_ONCE = 64


def fit_natural_gradient(problem: FitProblem) -> NaturalGradientFit:
    """Fit the subsets' operators in closed form; rows that cannot be measured are left out. Raises
    ModelError where those are most.
    """
    settings, stride = problem.settings, problem.stride
    encoded = problem.encode_all()
    reference = gather_reference(problem)
    geometry = reference.geometry
    views = allocate_views(problem.n, geometry.basis)
    views[geometry.known] = reference.views[0]
    faults = np.zeros(problem.n, dtype=np.uint8)
    faults[geometry.known] = reference.faults
    # Memberships of similar rows need to know all states first; with a subset a row, the pass over
    # the rows sees them anyway.
    unseen_views: Features | None = views
    if problem.n > settings.K:
        complete_views(problem, geometry, views)
        unseen_views = None
    membership = draw_by_design(
        problem.ids, compute_features(views), settings, stride, problem.seed
    )
    sums = sum_subsets(
        problem.model,
        encoded,
        membership,
        geometry,
        stride.token_budget,
        progress=problem.progress,
        views=unseen_views,
        faults=faults,
        store=problem.store,
    )
    require_measurable(faults, problem.pretrained.precision)
    # A row that was left out is in no sum: its subsets are those of their other rows.
    measured = list_measured(faults)
    encoded = tuple(encoded[i] for i in measured)
    return NaturalGradientFit(
        settings=settings,
        model=problem.model,
        encoder=problem.encoder,
        ids=tuple(problem.get_ids(measured)),
        operators=solve_operators(sums.G, geometry.preconditioner, geometry.basis, stride.shift),
        M=csr_array(membership.matrix()[:, measured]),
        features=compute_features(views[measured]),
        centre=sums.centre[measured],
        spread=sums.spread[measured],
        signs=np.array([row.sign for row in encoded]),
        encoded=encoded,
        faulty=list_faulty(faults),
        preconditioner=geometry.preconditioner,
    )


def complete_views(problem: FitProblem, geometry: Geometry, views: Features) -> None:
    """Fill in the `views` (n, VIEWS, r - 1) of the rows whose gradients are not known: a pass below
    the split only.
    """
    left = np.setdiff1d(np.arange(problem.n), geometry.known)
    views[left] = survey_views(
        problem.model,
        problem.encode(left),
        geometry.basis,
        problem.stride.token_budget,
        progress=problem.progress,
        store=problem.store,
    )


@dataclass(slots=True)
class SubsetSums:
    """`G` (K, r, D) sums c_i G_i over the rows of each subset, float32.

    `spread` (n,) is how much each row's push on ordinary conversations varies, and `centre` (n,)
    its mean in units of that.
    """

    G: Tensor
    centre: Array
    spread: Array

    @classmethod
    def zeros(cls, K: int, n: int, r: int, model: FrozenModel) -> "SubsetSums":
        """Of no rows yet."""
        G = torch.zeros(K, r, model.width, device=model.device)
        return cls(G, np.zeros(n), np.zeros(n))

    def add(
        self, rows: RowIndices, G: Tensor, subsets: Tensor, pushes: tuple[Tensor, Tensor]
    ) -> None:
        """Take in the rows (m,) with gradients G (m, r, D), the `subsets` (m, d) that hold them,
        and centre and spread (m,) of their pushes.
        """
        centre, spread = pushes
        self.centre[rows] = (centre / spread).cpu().numpy()
        self.spread[rows] = spread.cpu().numpy()
        add_to_subsets(self.G, G / spread[:, None, None].to(G.dtype), subsets)


def sum_subsets(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    membership: Membership,
    geometry: Geometry,
    token_budget: int,
    *,
    progress: Progress = silent,
    views: Features | None = None,
    faults: UInt8[Faults, " n"] | None = None,
    store: CheckpointStore | None = None,
) -> SubsetSums:
    """Sum all rows into their subsets, but for those that cannot be measured. Gradients that are
    known are not made again; `views` (n, VIEWS, r - 1) and `faults` (n,) of the others are filled
    in on the way.
    """

    def measure(batch: Batch) -> tuple[Faults, Tensor, tuple[Tensor, Tensor], Features | None]:
        seen, found = leave_out_faulty(model.compute_state_gradients(batch))
        G = compute_row_gradients(geometry.basis, seen)
        of_rows = None
        if views is not None:
            of_rows = compute_views(geometry.basis, seen.z, batch)
        return found, G, geometry.background.measure(G), of_rows

    n = len(encoded)
    if faults is None:
        faults = np.zeros(n, dtype=np.uint8)
    sums = SubsetSums.zeros(membership.K, n, geometry.basis.r, model)
    subsets = torch.from_numpy(membership.subsets)
    _add_known_rows(sums, subsets, geometry)
    rest = np.setdiff1d(np.arange(n), geometry.known)
    faults[rest] = find_unanswered([encoded[i] for i in rest])
    rest = rest[faults[rest] == Fault.NONE]
    filled: PassArrays = {
        "G": (sums.G, membership.subsets[rest]),
        "centre": (sums.centre, rest),
        "spread": (sums.spread, rest),
        "faults": (faults, rest),
    }
    if views is not None:
        filled["views"] = (views, rest)
    # After the known rows: what an interrupted pass left holds them already, and takes their place.
    taken_up = PassCheckpoint(store, "fit", filled)
    by_parts = compute_batches(measure)
    batches = taken_up.remaining_batches(
        make_batches([encoded[i] for i in rest], token_budget, model.device)
    )
    left = len(rest) - taken_up.rows
    for batch in progress(batches, "fit", left, lambda batch: len(batch.rows)):
        for part, (found, G, pushes, of_rows) in by_parts(batch):
            rows = rest[part.rows.numpy()]
            faults[rows] = found
            sums.add(rows, G, subsets[rows], pushes)
            if views is not None:
                views[rows] = of_rows
    return sums


def _add_known_rows(sums: SubsetSums, subsets: Tensor, geometry: Geometry) -> None:
    """Take in the rows whose gradients are known, in their own order: sums depend on it in the last
    digit.
    """
    # Known rows stand in the order they were drawn in.
    by_row = np.argsort(geometry.known, kind="stable")
    for at in np.array_split(by_row, max(1, -(-len(by_row) // KNOWN_AT_ONCE))):
        if not len(at):
            continue
        rows, device = geometry.known[at], sums.G.device
        G = geometry.G[torch.from_numpy(at).to(device)]
        own = torch.from_numpy(geometry.own[at]).to(device)
        sums.add(rows, G, subsets[rows], geometry.background.measure(G, own))
