"""The natural-gradient fit, streaming: a sample of the rows sets the geometry, then one pass sums
row gradients into subsets.

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
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.checkpoints.passes import PassArrays, PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.background import Background
from poisonwatch.stride.designs import draw_by_design
from poisonwatch.stride.fitted import IsolatedFit, NaturalGradientFit
from poisonwatch.stride.operators import (
    BASIS_ROWS,
    Basis,
    Moments,
    Preconditioner,
    add_to_subsets,
    compute_row_gradients,
    fit_basis,
    solve_operators,
)
from poisonwatch.stride.problem import FitProblem
from poisonwatch.stride.reference_cache import (
    compute_moments_key,
    load_row_statistics,
    save_row_statistics,
)
from poisonwatch.stride.row_statistics import RowStatistics, measure_row_statistics
from poisonwatch.stride.similarity import (
    allocate_views,
    compute_features,
    compute_views,
    survey_views,
)

# Known gradients that are summed at a time: each part is copied, divided by its spreads.
KNOWN_AT_ONCE = 64


def fit_natural_gradient(problem: FitProblem) -> NaturalGradientFit:
    """Fit the operators in closed form; an `IsolatedFit` where every row is a subset of its own."""
    settings, stride = problem.settings, problem.stride
    reference = gather_reference(problem)
    geometry, views = reference.geometry, reference.views
    # Memberships of similar rows need to know all states first; with a subset a row, the pass over
    # the rows sees them anyway.
    unseen_views: Features | None = views
    if problem.n > settings.K:
        complete_views(problem, reference)
        unseen_views = None
    membership = draw_by_design(
        problem.ids, compute_features(views), settings, stride, problem.seed
    )
    sums = sum_subsets(
        problem.model,
        problem.encoded,
        membership,
        geometry,
        stride.token_budget,
        progress=problem.progress,
        views=unseen_views,
        store=problem.store,
    )
    fitted = NaturalGradientFit(
        settings=settings,
        model=problem.model,
        encoder=problem.encoder,
        ids=problem.ids,
        operators=solve_operators(sums.G, geometry.preconditioner, geometry.basis, stride.shift),
        M=membership.matrix(),
        features=compute_features(views),
        centre=sums.centre,
        spread=sums.spread,
        signs=problem.signs,
        encoded=problem.encoded,
        preconditioner=geometry.preconditioner,
    )
    if (settings.K, settings.d) == (problem.n, 1):
        return IsolatedFit.from_fit(fitted, views)
    return fitted


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is set before the pass over the rows, and the gradients `G` (m, r, D) of the rows
    `known` (m,), which need none any more.

    `own` (m,) is a known row's place among the background's conversations, -1 where it is none of
    them.
    """

    basis: Basis
    preconditioner: Preconditioner
    background: Background
    known: RowIndices
    G: Tensor
    own: RowIndices

    @classmethod
    def from_moments(
        cls,
        basis: Basis,
        moments: Moments,
        damping: float,
        *,
        known: RowIndices,
        G: Tensor,
        sample: RowIndices,
        signs: Array,
    ) -> "Geometry":
        """With the known rows `sample` (b,), of `signs` (b,), as the background's conversations."""
        preconditioner = Preconditioner(moments, damping)
        place = {row: i for i, row in enumerate(known.tolist())}
        at = torch.tensor([place[row] for row in sample.tolist()], device=G.device)
        own = np.full(len(known), -1)
        own[at.cpu().numpy()] = np.arange(len(sample))
        return cls(
            basis=basis,
            preconditioner=preconditioner,
            background=Background.from_gradients(G[at], preconditioner, signs),
            known=known,
            G=G,
            own=own,
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """What the reference rows tell: the `geometry`, and the `views` (n, VIEWS, r - 1) of those rows
    whose gradients are known; 0 for all others, yet.
    """

    geometry: Geometry
    views: Features


def gather_reference(problem: FitProblem) -> Reference:
    """One pass over the sample, or over the trusted rows (kept for the next fit) and the rest of
    the sample.
    """
    first = problem.sample
    if problem.trusted is not None:
        first = problem.order[np.isin(problem.order, problem.trusted)]
    statistics = _load_or_measure_statistics(problem, first)
    basis = statistics.basis
    # Ordinary conversations are a sample of all rows: those of them that are not trusted have a
    # part in the background, but none in basis and factors.
    rest = np.setdiff1d(problem.sample, first)
    beside = _measure_statistics(problem, rest, basis, "sample")
    views = allocate_views(problem.n, basis)
    views[first], views[rest] = statistics.views, beside.views
    geometry = Geometry.from_moments(
        basis,
        statistics.moments,
        problem.stride.damping,
        known=np.concatenate([first, rest]),
        G=torch.cat([statistics.G, beside.G]),
        sample=problem.sample,
        signs=problem.signs[problem.sample],
    )
    return Reference(geometry, views)


def _load_or_measure_statistics(problem: FitProblem, rows: RowIndices) -> RowStatistics:
    """Statistics of the rows (m,) and a basis of their states: those kept for these trusted rows,
    or measured now, and kept where the rows are trusted.
    """
    if problem.trusted is None:
        return _measure_statistics(problem, rows, _fit_first_basis(problem, rows), "sample")
    ids = [problem.ids[i] for i in rows]
    key = compute_moments_key(problem.pretrained, problem.stride, problem.settings.layer, ids)
    found = load_row_statistics(key, problem.model.device)
    if found is None:
        found = _measure_statistics(problem, rows, _fit_first_basis(problem, rows), "trusted")
        # The cache holds all that the pass's shards held.
        if save_row_statistics(key, found):
            problem.store.delete(*problem.store.list_names("trusted-"))
    return found


def _fit_first_basis(problem: FitProblem, rows: RowIndices) -> Basis:
    """A basis of the first rows' states; one that an interrupted fit left."""
    encoded = problem.get_encoded(rows[:BASIS_ROWS])
    r, budget = problem.settings.r, problem.stride.token_budget
    return problem.store.get_or_compute(
        "basis", Basis, lambda: fit_basis(problem.model, encoded, r, budget, problem.progress)
    )


def _measure_statistics(
    problem: FitProblem, rows: RowIndices, basis: Basis, label: str
) -> RowStatistics:
    return measure_row_statistics(
        problem.model,
        problem.get_encoded(rows),
        basis,
        problem.stride.token_budget,
        label=label,
        progress=problem.progress,
        store=problem.store,
    )


def complete_views(problem: FitProblem, reference: Reference) -> None:
    """Fill in the views of the rows whose gradients are not known: a pass below the split only."""
    left = np.setdiff1d(np.arange(problem.n), reference.geometry.known)
    reference.views[left] = survey_views(
        problem.model,
        problem.get_encoded(left),
        reference.geometry.basis,
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
    store: CheckpointStore | None = None,
) -> SubsetSums:
    """Sum all rows into their subsets. Gradients that are known are not made again; `views` (n,
    VIEWS, r - 1) of the others are filled in on the way.
    """
    n = len(encoded)
    sums = SubsetSums.zeros(membership.K, n, geometry.basis.r, model)
    subsets = torch.from_numpy(membership.subsets)
    _add_known_rows(sums, subsets, geometry)
    rest = np.setdiff1d(np.arange(n), geometry.known)
    filled: PassArrays = {
        "G": (sums.G, membership.subsets[rest]),
        "centre": (sums.centre, rest),
        "spread": (sums.spread, rest),
    }
    if views is not None:
        filled["views"] = (views, rest)
    # After the known rows: what an interrupted pass left holds them already, and takes their place.
    taken_up = PassCheckpoint(store, "fit", filled)
    batches = taken_up.remaining_batches(
        make_batches([encoded[i] for i in rest], token_budget, model.device)
    )
    left = len(rest) - taken_up.rows
    for batch in progress(batches, "fit", left, lambda batch: len(batch.rows)):
        seen = model.compute_state_gradients(batch)
        rows = rest[batch.rows.numpy()]
        G = compute_row_gradients(geometry.basis, seen)
        sums.add(rows, G, subsets[rows], geometry.background.measure(G))
        if views is not None:
            views[rows] = compute_views(geometry.basis, seen.z, batch)
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
