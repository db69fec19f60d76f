"""What is set before the pass over the rows: basis, Fisher factors, and the background.

    trusted rows (or a sample)  --> basis B, factors A and S
    a sample of all rows        --> background: what ordinary conversations are pushed by

The gradients of the rows that this takes are known then, and need no pass any more. A row that
turns out not to be measurable has no part in any of this, and the next one is drawn in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.model.faults import Faults, find_unanswered, has_loss, require_measurable
from poisonwatch.stride.background import Background
from poisonwatch.stride.operators import (
    BASIS_ROWS,
    Basis,
    Moments,
    Preconditioner,
    fit_bases,
)
from poisonwatch.stride.problem import FitProblem
from poisonwatch.stride.reference_cache import (
    compute_moments_key,
    load_row_statistics,
    save_row_statistics,
)
from poisonwatch.stride.row_statistics import (
    RowStatistics,
    SplitStatistics,
    measure_row_statistics,
)


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
    """What the reference rows tell: the geometry at each of the model's splits, and of the rows
    whose gradients are known the views (m, VIEWS, r - 1) there, and the `faults` (m,).
    """

    geometries: tuple[Geometry, ...]
    views: tuple[Features, ...]
    faults: Faults

    @property
    def geometry(self) -> Geometry:
        """That of the first split, where operators steer."""
        return self.geometries[0]


def gather_reference(problem: FitProblem) -> Reference:
    """One pass over the sample, or over the trusted rows (kept for the next fit) and the rest of
    the sample.

    Raises ModelError where most of these rows cannot be measured.
    """
    known, sample, statistics = _gather_statistics(problem)
    signs = np.array([row.sign for row in problem.encode(sample)])
    geometries = []
    for split in statistics.splits:
        geometry = Geometry.from_moments(
            split.basis,
            split.moments,
            problem.stride.damping,
            known=known,
            G=split.G,
            sample=sample,
            signs=signs,
        )
        geometries.append(geometry)
    views = tuple(split.views for split in statistics.splits)
    return Reference(tuple(geometries), views, statistics.faults)


def _gather_statistics(problem: FitProblem) -> tuple[RowIndices, RowIndices, RowStatistics]:
    """The rows (m,) whose gradients are known before the pass, those of them (b,) that are the
    background, and what all m tell.
    """
    first = problem.sample
    if problem.trusted is not None:
        first = problem.order[np.isin(problem.order, problem.trusted)]
    statistics = _load_or_measure_statistics(problem, first)
    bases = [split.basis for split in statistics.splits]
    known, passes = first, [statistics]
    while True:
        faults = np.concatenate([some.faults for some in passes])
        require_measurable(faults, problem.pretrained.precision)
        sample = problem.draw_sample(known[faults > 0])
        rest = np.setdiff1d(sample, known)
        if not len(rest):
            break
        label = f"redrawn{len(passes)}"
        if problem.trusted is not None and len(passes) == 1:
            label = "sample"
        beside = _measure_statistics(problem, rest, bases, label)
        known, passes = np.concatenate([known, rest]), [*passes, beside]
    # Gradients are large: they are joined, twice there for a moment, only where there are others.
    if len(passes) > 1:
        of_splits = zip(*(some.splits for some in passes), strict=True)
        statistics = RowStatistics(
            # Ordinary conversations are a sample of all rows: those of them that are not trusted
            # have a part in the background, but none in basis and factors.
            splits=tuple(_join(each, with_moments=problem.trusted is None) for each in of_splits),
            faults=faults,
        )
    return known, sample, statistics


def _join(passes: Sequence[SplitStatistics], *, with_moments: bool) -> SplitStatistics:
    """The first pass's basis and moments, with the others' moments where asked for, and gradients
    and views of all passes.
    """
    basis, moments = passes[0].basis, passes[0].moments
    if with_moments:
        for beside in passes[1:]:
            moments += beside.moments
    G = torch.cat([some.G for some in passes])
    return SplitStatistics(basis, moments, G, np.concatenate([some.views for some in passes]))


def _load_or_measure_statistics(problem: FitProblem, rows: RowIndices) -> RowStatistics:
    """Statistics of the rows (m,) and bases of their states: those kept for these trusted rows, or
    measured now, and kept where the rows are trusted.
    """
    if problem.trusted is None:
        return _measure_statistics(problem, rows, _fit_first_bases(problem, rows), "sample")
    ids = [problem.ids[i] for i in rows]
    layers = (problem.model.layer, *problem.model.further)
    key = compute_moments_key(problem.pretrained, problem.stride, layers, ids)
    found = load_row_statistics(key, len(layers), problem.model.device)
    if found is None:
        found = _measure_statistics(problem, rows, _fit_first_bases(problem, rows), "trusted")
        # The cache holds all that the pass's shards held.
        if save_row_statistics(key, found):
            problem.store.delete(*problem.store.list_names("trusted-"))
    return found


def _fit_first_bases(problem: FitProblem, rows: RowIndices) -> tuple[Basis, ...]:
    """Bases of the first rows' states; those that an interrupted fit left."""
    some = problem.encode(rows[:BASIS_ROWS])
    require_measurable(find_unanswered(some), problem.pretrained.precision)
    encoded = list(filter(has_loss, some))
    r, budget = problem.settings.r, problem.stride.token_budget
    return problem.store.get_or_compute(
        "bases",
        tuple[Basis, ...],
        lambda: fit_bases(problem.model, encoded, r, budget, problem.progress),
    )


def _measure_statistics(
    problem: FitProblem, rows: RowIndices, bases: Sequence[Basis], label: str
) -> RowStatistics:
    return measure_row_statistics(
        problem.model,
        problem.encode(rows),
        bases,
        problem.stride.token_budget,
        label=label,
        progress=problem.progress,
        store=problem.store,
    )
