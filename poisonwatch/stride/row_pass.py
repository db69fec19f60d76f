"""One pass over the rows, a record a row: the sentinels are known before it, so that what a row
does to them is exact the moment its gradient is there, and the gradient need not be kept.

    y_i(q) = <P G_q, G_i> / (||G_q|| spread_i) ,   P G = (A + damping)^-1 G (S + damping)^-1

that is -<G_q, a_i> with a_i the operator of the subset that holds row i alone, in background
standard deviations.

Rows come in shards, and batches are made within a shard: which rows share a batch depends on the
rows alone, never on who measures how many shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import Features, RowIndices
from poisonwatch.examples import Example
from poisonwatch.model.encoding import Batch, ChatEncoder, make_batches
from poisonwatch.model.fault import Fault
from poisonwatch.model.faults import find_unanswered, leave_out_faulty, list_measured
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import compute_batches
from poisonwatch.stride.background import Background
from poisonwatch.stride.operators import Basis, Preconditioner, compute_row_gradients
from poisonwatch.stride.records import FurtherRecords, RowRecords, pack_ids
from poisonwatch.stride.similarity import VIEWS, compute_views
from poisonwatch.stride.sketch import RowSketches, Sketch


def precondition_queries(
    preconditioner: Preconditioner, G: Float[Tensor, "Q r D"]
) -> Float[Tensor, "Q r D"]:
    """What a row's gradient is multiplied with, P G_q / ||G_q|| (Q, r, D): lengths of queries do
    not tell rows apart. A query that nothing moves is 0.
    """
    lengths = G.flatten(1).norm(dim=1)
    scale = torch.where(lengths > 0, lengths, 1.0)
    # Laid out row by row: every batch of rows is multiplied with them.
    return (preconditioner(G) / scale[:, None, None]).contiguous()


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """What rows are measured with: the `basis` of their gradients, the `background`, and the
    preconditioned `queries` (Q, r, D).
    """

    basis: Basis
    background: Background
    queries: Tensor

    def measure(
        self, G: Float[Tensor, "m r D"], own: Int64[Tensor, " m"] | None = None
    ) -> tuple[Features, Features, Features]:
        """Effects (m, Q), centre and spread (m,) of rows with gradients G (m, r, D); `own` as for
        `Background.measure`.
        """
        centre, spread = self.background.measure(G, own)
        pushes = (G.flatten(1) @ self.queries.flatten(1).T).double()
        effects = pushes / spread[:, None]
        return _to_numpy(effects), _to_numpy(centre / spread), _to_numpy(spread)


def _find_overflows(effects: Features, centre: Features, spread: Features) -> NDArray[np.bool_]:
    """Of which of m rows a number is too large, though the gradient was finite: effects (m, Q),
    centre and spread (m,).
    """
    # A row that moves nothing has an infinite spread.
    fits: NDArray[np.bool_] = np.isfinite(effects).all(axis=1) & np.isfinite(centre)
    return ~(fits & ~np.isnan(spread))


def _to_numpy(values: Tensor) -> Features:
    array: Features = values.float().cpu().numpy()
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMeter:
    """Measures rows: whatever a process needs for it, but for the rows; `yardsticks` are those of
    each of the model's splits. A `sketch` is kept of their gradients at the first where one is
    given; gradients are kept at the first, or at every split where `keep_further`.
    """

    model: FrozenModel
    encoder: ChatEncoder
    yardsticks: tuple[Yardsticks, ...]
    token_budget: int
    keep_gradients: bool
    sketch: Sketch | None = None
    keep_further: bool = False

    def measure_shard(self, rows: Sequence[Example], records: RowRecords) -> Iterator[int]:
        """Fill in the `records` of these rows, batch by batch; yields how many rows are done each
        time, those that have nothing to learn first.
        """
        encoded = [self.encoder.encode_example(row) for row in rows]
        records.signs[:] = [row.sign for row in encoded]
        records.faults[:] = find_unanswered(encoded)
        answered = list_measured(records.faults)
        yield len(rows) - len(answered)

        def measure(batch: Batch) -> int:
            self._measure_batch(batch, answered[batch.rows.numpy()], records)
            return len(batch.rows)

        by_parts = compute_batches(measure)
        some = [encoded[i] for i in answered]
        for batch in make_batches(some, self.token_budget, self.model.device):
            for _, rows_done in by_parts(batch):
                yield rows_done

    def _measure_batch(self, batch: Batch, at: RowIndices, records: RowRecords) -> None:
        """Fill in the records of a batch's rows, at the places `at` (m,). Done again, it comes to
        the same.
        """
        seen, records.faults[at] = leave_out_faulty(self.model.compute_state_gradients(batch))
        for split, at_split in enumerate(seen.splits):
            basis = self.yardsticks[split].basis
            views = records.get_layer(split).views
            views[at] = compute_views(basis, at_split.z, batch).reshape(len(at), -1)
            self.fill_effects(records, at, compute_row_gradients(basis, at_split), split)

    def fill_effects(
        self,
        records: RowRecords,
        at: Int64[np.ndarray, " m"],
        G: Float[Tensor, "m r D"],
        split: int = 0,
        own: Int64[Tensor, " m"] | None = None,
    ) -> None:
        """Fill in what gradients G (m, r, D) at a split tell of the rows at the places `at` (m,).

        Gradients are kept where records have room for them, spread and sketch of the first split
        alone.
        """
        effects, centre, spread = self.yardsticks[split].measure(G, own)
        records.faults[at[_find_overflows(effects, centre, spread)]] = Fault.GRADIENT
        layer = records.get_layer(split)
        layer.effects[at], layer.centre[at] = effects, centre
        if layer.gradients is not None:
            layer.gradients[at] = G.flatten(1).float().cpu().numpy()
        if split:
            return
        records.spread[at] = spread
        if self.sketch is not None and records.sketch is not None:
            made = self.sketch.encode(G, spread)
            records.sketch.codes[at], records.sketch.scale[at] = made.codes, made.scale

    def allocate_records(self, rows: Sequence[Example]) -> RowRecords:
        """Room for the records of these rows."""
        m, r, Q = len(rows), self.yardsticks[0].basis.r, len(self.yardsticks[0].queries)
        numbers = r * self.model.width
        gradients = _allocate(m, numbers) if self.keep_gradients else None
        further = []
        for _ in self.yardsticks[1:]:
            kept = _allocate(m, numbers) if self.keep_further else None
            above = FurtherRecords(
                effects=_allocate(m, Q),
                centre=np.zeros(m, dtype=np.float32),
                views=_allocate(m, VIEWS * (r - 1)),
                gradients=kept,
            )
            further.append(above)
        sketch = None
        if self.sketch is not None:
            sketch = RowSketches.allocate(m, self.sketch)
        return RowRecords(
            ids=pack_ids(row.id for row in rows),
            effects=_allocate(m, Q),
            centre=np.zeros(m, dtype=np.float32),
            spread=np.zeros(m, dtype=np.float32),
            signs=np.ones(m, dtype=np.float32),
            faults=np.zeros(m, dtype=np.uint8),
            views=_allocate(m, VIEWS * (r - 1)),
            gradients=gradients,
            sketch=sketch,
            further=tuple(further),
        )


def _allocate(m: int, numbers: int) -> Features:
    return np.zeros((m, numbers), dtype=np.float32)
