"""STRIDE with one subset a row, at any number of rows: one stream, and no operators kept.

    a sample of b rows         --> basis, Fisher factors, background      (`geometry`)
    sentinels                  --> P G_q / ||G_q||
    every row, once, in shards --> a record: effects, centre, spread, views   (`row_pass`)
    records                    --> smoothed over neighbours; suspects on each other   (`measured`)

What is held does not grow with the rows, but for the records, which lie on disk. Where the rows'
gradients fit `stride.memory_gb` they are among the records, and whatever needs them again need not
make them again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from poisonwatch.arrays import RowIndices
from poisonwatch.config import StrideConfig
from poisonwatch.errors import OperationError
from poisonwatch.examples import Example, SelectedExamples
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.fault import Fault, FaultyRow
from poisonwatch.model.faults import Faults, list_faulty, list_measured, require_measurable
from poisonwatch.model.free_memory import return_main_memory
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.geometry import Geometry, Reference, gather_reference
from poisonwatch.stride.influence import Influence, build_queries
from poisonwatch.stride.leaning import AnswerStates, compute_leaning
from poisonwatch.stride.measured import MeasuredRows, select_suspects, smooth_and_cross
from poisonwatch.stride.operators import (
    Basis,
    Preconditioner,
    compute_gradients,
    compute_typical_eta,
)
from poisonwatch.stride.problem import FitProblem
from poisonwatch.stride.queries import QuerySpace, prepare_queries
from poisonwatch.stride.record_table import RecordTable
from poisonwatch.stride.records import RecordStore, RowRecords, plan_shards
from poisonwatch.stride.row_pass import RowMeter, Yardsticks, precondition_queries
from poisonwatch.stride.scoring import list_panels
from poisonwatch.stride.settings import Settings, count_kept_gradients
from poisonwatch.stride.similarity import compute_features
from poisonwatch.stride.sketch import Sketch, choose_sketch
from poisonwatch.stride.wording import compute_wording, count_answers

# Rows of the background that say how long a typical operator is.
TYPICAL_ROWS = 64

# Known rows that are measured at a time.
KNOWN_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard to be measured: its `name`, and the `rows` (m,) that it holds."""

    name: str
    rows: RowIndices


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardWork:
    """The shards that are left to measure of `rows`, with what they are measured by, and where
    their records go.
    """

    shards: list[Shard]
    rows: Sequence[Example]
    meter: RowMeter
    store: RecordStore

    def get_rows(self, shard: Shard) -> list[Example]:
        """The rows of a shard."""
        return [self.rows[i] for i in shard.rows.tolist()]


# Measures shards of rows and writes their records; yields how many rows are done each time.
ShardEngine = Callable[[ShardWork], Iterator[int]]


def measure_locally(work: ShardWork) -> Iterator[int]:
    """Measure shard by shard in this process."""
    for shard in work.shards:
        yield from measure_one_shard(work, shard)


def measure_one_shard(work: ShardWork, shard: Shard) -> Iterator[int]:
    """Measure a shard and write its records; yields how many rows are done each time."""
    rows = work.get_rows(shard)
    records = work.meter.allocate_records(rows)
    yield from work.meter.measure_shard(rows, records)
    work.store.write(shard.name, records)
    return_main_memory()


@dataclass(frozen=True, slots=True)
class Factors:
    """What gradients at one of the model's splits are made and multiplied with."""

    basis: Basis
    preconditioner: Preconditioner


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedFit:
    """What a streamed pass leaves: what every row does to the queries (`measured`), and what is
    needed to do more with single rows.

    `table` holds the records, `rows` the rows themselves, `faulty` those that could not be measured
    and are none of them. `eta` scales operators of single rows to the typical `shift`. `sketch` is
    what gradients were kept by that took too much room, None where all were kept, or nothing of
    them. `further` are basis and factors at the layers above, and `answers` the states of the
    sentinels' answers at the last layer. Where other sentinels than the pass's own were asked,
    effects are known at the first layer alone (`asked_later`).
    """

    settings: Settings
    model: FrozenModel
    encoder: ChatEncoder
    rows: Sequence[Example]
    ids: tuple[str, ...]
    basis: Basis
    preconditioner: Preconditioner
    eta: float
    shift: float
    token_budget: int
    measured: MeasuredRows
    table: RecordTable
    sketch: Sketch | None = None
    faulty: tuple[FaultyRow, ...] = ()
    further: tuple[Factors, ...] = ()
    answers: AnswerStates
    asked_later: bool = False

    @property
    def factors(self) -> tuple[Factors, ...]:
        """Basis and factors at each of the model's splits."""
        return (Factors(self.basis, self.preconditioner), *self.further)

    def get_gradients(
        self, rows: Int64[RowIndices, " m"], label: str = "rows", progress: Progress = silent
    ) -> Float[Tensor, "m r D"]:
        """G (m, r, D) of the rows (m,): from the records, or made again."""
        if self.table.keeps_gradients:
            flat = torch.from_numpy(self.table.get_gradients(rows)).to(self.model.device)
            return flat.view(len(rows), self.basis.r, self.model.width)
        encoded = [self.encoder.encode_example(self.rows[i]) for i in rows.tolist()]
        return compute_gradients(
            self.model, self.basis, encoded, self.token_budget, label, progress
        )

    def compute_row_operators(
        self, rows: Int64[RowIndices, " m"], token_budget: int, progress: Progress = silent
    ) -> Float[Tensor, "m r D"]:
        """What each of the rows (m,) does on its own, a_i = -eta P c_i G_i (m, r, D)."""
        del token_budget  # the pass has its own
        G = self.get_gradients(rows, "rows", progress)
        spread = torch.from_numpy(self.measured.spread[rows]).to(G)
        return -self.eta * self.preconditioner(G / spread[:, None, None])

    def ask(
        self, sentinels: Sequence[Sentinel], stride: StrideConfig, progress: Progress = silent
    ) -> "StreamedFit":
        """What the rows do to these sentinels, at the first layer where they are others than the
        pass's.

        Where they are others than the pass's, and gradients were not kept, rows are measured by
        their sketches, and the `shortlist` rows that score highest exactly. Raises ValueError where
        there are no sketches: it takes another pass, then.
        """
        if build_queries(sentinels) == self.measured.queries:
            return self
        if not self.table.keeps_gradients and self.sketch is None:
            raise ValueError("the rows were measured on other sentinels: measure them again")
        first, *further = (factors.basis for factors in self.factors)
        space = QuerySpace(self.model, self.encoder, first, tuple(further))
        queries, prepared = prepare_queries(space, sentinels, stride, progress)
        probes = precondition_queries(self.preconditioner, prepared.G)
        if self.sketch is None:
            effects = self.table.measure_effects(probes, self.measured.spread)
        else:
            projected = self.sketch.project_queries(prepared.G)
            effects = self.table.measure_sketched_effects(projected)
            beyond = effects - self.measured.centre[:, None]
            suspects = select_suspects(queries, beyond, self.settings.shortlist)
            G = self.get_gradients(suspects, "suspects", progress)
            pushes = (G.flatten(1) @ probes.flatten(1).T).double().cpu().numpy()
            effects[suspects] = pushes / self.measured.spread[suspects, None]
        measured = replace(self.measured, queries=queries, effects=effects)
        answers = AnswerStates.of_sentinels(sentinels, prepared.states)
        return replace(self, measured=measured, answers=answers, asked_later=True)

    def recover(self, progress: Progress = silent) -> Influence:
        """The rows' coefficients for the queries of the pass."""

        def get_suspects(rows: RowIndices) -> Tensor:
            return self.get_gradients(rows, "suspects", progress)

        measured = self.measured
        views = self.table.collect_views(split=len(self.further))
        panels = list_panels(measured.queries)
        return smooth_and_cross(
            measured,
            get_suspects,
            self.preconditioner,
            self.settings.shortlist,
            further=() if self.asked_later else self.table.iterate_further(),
            leaning=compute_leaning(views, measured.signs, self.answers, panels),
            wording=compute_wording(
                count_answers(self.rows), measured.signs, self.answers.answers, panels
            ),
        )


def fit_streamed(
    problem: FitProblem, sentinels: Sequence[Sentinel], engine: ShardEngine = measure_locally
) -> StreamedFit:
    """Measure every row alone on the sentinels; rows that cannot be measured are left out. Raises
    ModelError where those are most, OperationError where the disk holds no more records.
    """
    reference = gather_reference(problem)
    geometry, *further = reference.geometries
    probes, answers = _prepare_probes(problem, reference, sentinels)
    yardsticks = tuple(
        Yardsticks(basis=each.basis, background=each.background, queries=queries)
        for each, queries in zip(reference.geometries, probes, strict=True)
    )
    sketch = _choose_sketch(problem, geometry)
    table, faults = measure_rows(problem, reference, yardsticks, engine, sketch)
    require_measurable(faults, problem.pretrained.precision)
    measured = list_measured(faults)
    centre, spread, signs = table.collect_scales()
    return StreamedFit(
        settings=problem.settings,
        model=problem.model,
        encoder=problem.encoder,
        rows=SelectedExamples.of(problem.rows, measured.tolist()),
        ids=tuple(problem.get_ids(measured)),
        basis=geometry.basis,
        preconditioner=geometry.preconditioner,
        eta=_compute_eta(geometry, problem.stride),
        shift=problem.stride.shift,
        token_budget=problem.stride.token_budget,
        measured=MeasuredRows(
            queries=build_queries(sentinels),
            effects=table.collect_effects(),
            centre=centre,
            spread=spread,
            signs=signs,
            features=compute_features(table.collect_views()),
        ),
        table=table,
        sketch=sketch,
        faulty=list_faulty(faults),
        further=tuple(Factors(each.basis, each.preconditioner) for each in further),
        answers=answers,
    )


def _keeps_gradients(problem: FitProblem) -> bool:
    """Whether the memory budget has room for all rows' gradients."""
    r, width = problem.settings.r, problem.model.width
    return problem.n <= count_kept_gradients(problem.stride, r, width)


def _choose_sketch(problem: FitProblem, geometry: Geometry) -> Sketch | None:
    """What is kept of gradients where there is no room for them; the one of an interrupted pass."""
    if _keeps_gradients(problem) or not problem.stride.sketch:
        return None
    return problem.store.get_or_compute(
        "sketch",
        Sketch,
        lambda: choose_sketch(geometry.preconditioner, problem.stride.sketch),
    )


def _prepare_probes(
    problem: FitProblem, reference: Reference, sentinels: Sequence[Sentinel]
) -> tuple[list[Float[Tensor, "Q r D"]], AnswerStates]:
    """The sentinels' queries as rows are multiplied with them (Q, r, D), at each of the model's
    splits, and the states of their answers; their gradients are not needed any more.
    """
    first, *further = (geometry.basis for geometry in reference.geometries)
    space = QuerySpace(problem.model, problem.encoder, first, tuple(further))

    def compute() -> tuple[Tensor, ...]:
        prepared = prepare_queries(space, sentinels, problem.stride, problem.progress)[1]
        return prepared.states, prepared.G, *prepared.further

    # Of the pass's key, too: a store under it is of these sentinels.
    states, *gradients = problem.store.get_or_compute("sentinels", tuple[Tensor, ...], compute)
    probes = [
        precondition_queries(geometry.preconditioner, G)
        for geometry, G in zip(reference.geometries, gradients, strict=True)
    ]
    return probes, AnswerStates.of_sentinels(sentinels, states.cpu())


def measure_rows(
    problem: FitProblem,
    reference: Reference,
    yardsticks: tuple[Yardsticks, ...],
    engine: ShardEngine,
    sketch: Sketch | None = None,
) -> tuple[RecordTable, UInt8[Faults, " n"]]:
    """The pass: a record for every row that can be measured, from shards that are there already, or
    are measured now; and the faults (n,) of all rows.

    Raises OperationError, before the first, where the disk has no room for those that are left.
    """
    meter = RowMeter(
        model=problem.model,
        encoder=problem.encoder,
        yardsticks=yardsticks,
        token_budget=problem.stride.token_budget,
        keep_gradients=_keeps_gradients(problem),
        sketch=sketch,
        keep_further=problem.keep_further,
    )
    store = problem.open_records()
    known = _measure_known(problem, reference, meter)
    rest = problem.order[~np.isin(problem.order, reference.geometry.known)]
    shards = []
    for number, rows in enumerate(plan_shards(rest)):
        shards.append(Shard(f"records-{number:06d}", rows))
    found = {shard.name: store.read(shard.name, problem.get_ids(shard.rows)) for shard in shards}
    left = [shard for shard in shards if found[shard.name] is None]
    done = sum(len(shard.rows) for shard in shards) - sum(len(shard.rows) for shard in left)
    problem.store.rows_reused += done
    store.require_room(len(rest) - done, like=known)
    work = ShardWork(shards=left, rows=problem.rows, meter=meter, store=store)
    for rows_done in problem.progress(engine(work), "fit", len(rest) - done, lambda rows: rows):
        problem.store.newly_computed += rows_done
    table = [(reference.geometry.known, known)]
    for shard in shards:
        records = found[shard.name] or store.read(shard.name, problem.get_ids(shard.rows))
        if records is None:
            raise OperationError(f"{shard.name} was measured, and is not in {store.folder}")
        table.append((shard.rows, records))
    table, faults = drop_faulty(table, problem.n)
    return RecordTable(len(list_measured(faults)), table, store), faults


def drop_faulty(
    shards: Sequence[tuple[RowIndices, RowRecords]], n: int
) -> tuple[list[tuple[RowIndices, RowRecords]], UInt8[Faults, " n"]]:
    """The shards of n rows without those that have a fault, the others numbered anew; and the
    faults (n,).
    """
    faults = np.zeros(n, dtype=np.uint8)
    for rows, records in shards:
        faults[rows] = records.faults
    number = np.cumsum(faults == Fault.NONE) - 1
    kept = []
    for rows, records in shards:
        measured = list_measured(records.faults)
        # What is mapped stays where it is, but for the few shards that lose a row.
        if len(measured) < len(rows):
            rows, records = rows[measured], records.select(measured)
        kept.append((number[rows], records))
    return kept, faults


def _measure_known(problem: FitProblem, reference: Reference, meter: RowMeter) -> RowRecords:
    """The records of the rows whose gradients are known already."""
    rows = [problem.rows[i] for i in reference.geometry.known.tolist()]
    records = meter.allocate_records(rows)
    records.signs[:] = [1.0 - 2.0 * row.lowered for row in rows]
    records.faults[:] = reference.faults
    for split, views in enumerate(reference.views):
        records.get_layer(split).views[:] = views.reshape(len(rows), -1)
    for start in range(0, len(rows), KNOWN_AT_ONCE):
        at = np.arange(start, min(start + KNOWN_AT_ONCE, len(rows)))
        for split, geometry in enumerate(reference.geometries):
            G = geometry.G[start : start + KNOWN_AT_ONCE]
            own = torch.from_numpy(geometry.own[at]).to(G.device)
            meter.fill_effects(records, at, G, split, own)
    return records


def _compute_eta(geometry: Geometry, stride: StrideConfig) -> float:
    """What scales the operator of a typical row of the background to `stride.shift`."""
    some = np.flatnonzero(geometry.own >= 0)[:TYPICAL_ROWS]
    G = geometry.G[torch.from_numpy(some).to(geometry.G.device)]
    own = torch.from_numpy(geometry.own[some]).to(G.device)
    _, spread = geometry.background.measure(G, own)
    a = geometry.preconditioner(G / spread[:, None, None].to(G))
    power = geometry.preconditioner.mean_power
    return compute_typical_eta(a, geometry.preconditioner.A, power, stride.shift)
