"""The shards of a pass as one table of n rows: columns put together, gradients looked up."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.stride.measured import LayerEffects
from poisonwatch.stride.records import RecordStore, RowRecords
from poisonwatch.stride.similarity import VIEWS, compute_features
from poisonwatch.stride.sketch import RowSketches


class RecordTable:
    """Records of rows 0 to n - 1 in `shards`, each with the rows (m,) that it holds.

    Columns of every row are arrays in memory; gradients stay where they are mapped.
    """

    def __init__(
        self,
        n: int,
        shards: Sequence[tuple[RowIndices, RowRecords]],
        store: RecordStore | None = None,
    ) -> None:
        self.n = n
        # A store in a folder of its own takes its files along when it goes.
        self._store = store
        self._shards = shards
        # Where each row stands: its shard, and its place there.
        self._shard, self._place = np.full(n, -1), np.full(n, -1)
        for number, (rows, _) in enumerate(shards):
            self._shard[rows], self._place[rows] = number, np.arange(len(rows))
        if (self._shard < 0).any():
            raise ValueError(f"{int((self._shard < 0).sum())} of {n} rows have no record")

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients are among the records."""
        return all(records.gradients is not None for _, records in self._shards)

    def collect_effects(self) -> Float32[Features, "n Q"]:
        """Effects (n, Q)."""
        Q = self._shards[0][1].effects.shape[1]
        effects = np.empty((self.n, Q), dtype=np.float32)
        for rows, records in self._shards:
            effects[rows] = records.effects
        return effects

    def iterate_further(self) -> Iterator[LayerEffects]:
        """What the rows do at each layer above the first, one after the other."""
        first = self._shards[0][1]
        for split in range(1, 1 + len(first.further)):
            effects = np.empty((self.n, first.effects.shape[1]), dtype=np.float32)
            centre = np.empty(self.n)
            for rows, records in self._shards:
                layer = records.get_layer(split)
                effects[rows], centre[rows] = layer.effects, layer.centre
            yield LayerEffects(effects, centre, compute_features(self.collect_views(split=split)))

    def collect_scales(self) -> tuple[Array, Array, Array]:
        """Centre, spread and signs, (n,) each."""
        centre, spread, signs = np.empty(self.n), np.empty(self.n), np.empty(self.n)
        for rows, records in self._shards:
            centre[rows], spread[rows], signs[rows] = records.centre, records.spread, records.signs
        return centre, spread, signs

    def collect_views(
        self, wanted: Int64[RowIndices, " m"] | None = None, split: int = 0
    ) -> Float32[Features, "m views directions"]:
        """The views (m, VIEWS, r - 1) of the rows `wanted` (m,), by default of all, at a split."""
        f = self._shards[0][1].views.shape[1]
        views = np.empty((self.n, f), dtype=np.float32)
        for rows, records in self._shards:
            views[rows] = records.get_layer(split).views
        if wanted is not None:
            views = views[wanted]
        return views.reshape(len(views), VIEWS, f // VIEWS)

    def get_gradients(
        self, rows: Int64[RowIndices, " m"], split: int = 0
    ) -> Float32[Features, "m rD"]:
        """The gradients (m, r * D) of some rows that were kept at a split, a copy. Raises
        ValueError where none are.
        """
        found = [self._get_gradient(i, split) for i in rows.tolist()]
        return np.stack(found)

    def _get_gradient(self, row: int, split: int) -> Features:
        kept = self._shards[self._shard[row]][1].get_layer(split).gradients
        if kept is None:
            raise ValueError("the pass kept no gradients")
        gradient: Features = kept[self._place[row]]
        return gradient

    def measure_effects(
        self, probes: Float[Tensor, "Q r D"], spread: Float64[Array, " n"], split: int = 0
    ) -> Float32[Features, "n Q"]:
        """Effects (n, Q) on queries that the pass did not know, from the gradients kept at a split:
        `probes` (Q, r, D) are preconditioned queries, `spread` (n,) what effects are counted in.
        Raises ValueError where no gradients are kept.
        """
        effects = np.empty((self.n, len(probes)), dtype=np.float32)
        for rows, records in self._shards:
            kept = records.get_layer(split).gradients
            if kept is None:
                raise ValueError("the pass kept no gradients")
            # A copy of a shard: torch takes no array that cannot be written to.
            gradients = torch.from_numpy(kept.copy()).to(probes)
            pushes = (gradients @ probes.flatten(1).T).cpu().double().numpy()
            effects[rows] = pushes / spread[rows, None]
        return effects

    def measure_sketched_effects(self, probes: Float[Tensor, "Q r b"]) -> Float32[Features, "n Q"]:
        """Effects (n, Q) on queries that the pass did not know, as far as sketches tell: `probes`
        (Q, r, b) are queries projected as these were. Raises ValueError where there are none.
        """
        effects = np.empty((self.n, len(probes)), dtype=np.float32)
        for rows, sketch in self._iterate_sketches():
            effects[rows] = sketch.measure(probes)
        return effects

    def collect_sketch_scale(self) -> Float32[Features, "n c"]:
        """What the codes of every row's sketch count (n, c). Raises ValueError where there are no
        sketches.
        """
        blocks = list(self._iterate_sketches())
        scale = np.empty((self.n, blocks[0][1].scale.shape[1]), dtype=np.float32)
        for rows, sketch in blocks:
            scale[rows] = sketch.scale
        return scale

    def copy_sketch_codes(self, room: UInt8[NDArray[np.uint8], "n k"]) -> None:
        """Copy the codes of every row's sketch to where there is `room` (n, k) for them, shard by
        shard. Raises ValueError where there are none.
        """
        for rows, sketch in self._iterate_sketches():
            room[rows] = sketch.codes

    def _iterate_sketches(self) -> Iterator[tuple[RowIndices, RowSketches]]:
        for rows, records in self._shards:
            if records.sketch is None:
                raise ValueError("the pass kept no sketches")
            yield rows, records.sketch

    def collect_scaled_gradients(self, spread: Float64[Array, " n"]) -> Float[Tensor, "n rD"]:
        """The kept gradients over `spread` (n,), c_i G_i (n, r * D), in bfloat16; 0 for a row that
        moves nothing. Raises ValueError where no gradients are kept.
        """
        scaled: Tensor | None = None
        for rows, records in self._shards:
            if records.gradients is None:
                raise ValueError("the pass kept no gradients")
            if scaled is None:
                scaled = torch.empty(self.n, records.gradients.shape[1], dtype=torch.bfloat16)
            of_shard = records.gradients / spread[rows, None].astype(np.float32)
            scaled[torch.from_numpy(rows)] = torch.from_numpy(of_shard).to(torch.bfloat16)
        if scaled is None:
            raise ValueError("there are no records")
        return scaled
