"""Where training on each row would push the model, and how alike two rows push it.

    cos(i, j) = <H_i, H_j> / (||H_i|| ||H_j||) ,   <H_i, H_j> = <P G_i, G_j>

with H the whitened gradients of `stride.sketch`: the inner product in which influence is measured,
without the rows' lengths. What a row does counts, not how much of it. No model is run: gradients,
or sketches of them, are what a pass left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from poisonwatch.arrays import Features
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Preconditioner
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.sketch import RowSketches, Sketch
from poisonwatch.stride.streamed import StreamedFit

# Rows whose gradients are whitened at a time.
ROWS_AT_ONCE = 256

# Rows that are multiplied with all others at a time.
PAIRS_AT_ONCE = 1024

# Rows whose pairs fit: n x n numbers, a gigabyte.
MOST_ROWS = 16_384

# Reads the whitened gradients (m, r, b) of some rows, of any length.
_ReadWhitened = Callable[[slice], Tensor]


@dataclass(frozen=True, slots=True)
class Directions:
    """`cosines` (n, n) of the rows' whitened gradients, `features` (n, f) of their states
    (`stride.similarity`), and `ids` (n,). A row that moves nothing is like no other: 0.
    """

    cosines: Float32[Features, "n n"]
    features: Float32[Features, "n f"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def measure_directions(rows: SavedRows | StreamedFit, progress: Progress = silent) -> Directions:
    """The directions of an audit's rows, in their order. Raises ValueError where neither gradients
    nor sketches of them were kept, and where there are more than MOST_ROWS rows.
    """
    n = len(rows.ids)
    if n > MOST_ROWS:
        raise ValueError(f"{n:,} rows are more than can be compared with each other, {MOST_ROWS:,}")
    read = _open_saved(rows) if isinstance(rows, SavedRows) else _open_streamed(rows)
    blocks = [slice(start, min(start + ROWS_AT_ONCE, n)) for start in range(0, n, ROWS_AT_ONCE)]
    whitened = progress(blocks, "directions", n, lambda some: some.stop - some.start)
    # Half of the numbers' bytes, and cosines to a thousandth.
    H = torch.cat([scale_to_unit(read(some)).to(torch.bfloat16) for some in whitened])
    features = rows.features if isinstance(rows, SavedRows) else rows.measured.features
    return Directions(multiply_pairs(H), features, rows.ids)


def _open_saved(rows: SavedRows) -> _ReadWhitened:
    gradients = rows.gradients
    if gradients is None:
        return _open_sketches(rows.sketch, rows.sketches)
    whiten = _make_whitening(rows.preconditioner)
    return lambda some: whiten(gradients[some])


def _open_streamed(rows: StreamedFit) -> _ReadWhitened:
    if rows.table.keeps_gradients:
        whiten = _make_whitening(rows.preconditioner)
        return lambda some: whiten(rows.get_gradients(np.arange(some.start, some.stop)))
    if rows.sketch is None:
        return _open_sketches(None, None)
    sketches = RowSketches.allocate(len(rows.ids), rows.sketch)
    rows.table.copy_sketch_codes(sketches.codes)
    return _open_sketches(
        rows.sketch, RowSketches(sketches.codes, rows.table.collect_sketch_scale())
    )


def _open_sketches(sketch: Sketch | None, sketches: RowSketches | None) -> _ReadWhitened:
    if sketch is None or sketches is None:
        raise ValueError("neither gradients nor sketches were kept")
    return lambda some: sketch.restore(sketches, some)


def _make_whitening(preconditioner: Preconditioner) -> Callable[[Tensor], Tensor]:
    """What whitens gradients (m, r * D) or (m, r, D)."""
    left, right = preconditioner.find_whitening()

    def whiten(G: Tensor) -> Tensor:
        G = G.to(right).view(len(G), len(left), len(right))
        return left.mT @ G @ right

    return whiten


def scale_to_unit(H: Float[Tensor, "m ..."]) -> Float[Tensor, "m _"]:
    """Rows (m, k) of length one; one that is 0, or not finite, is 0."""
    flat = H.flatten(1)
    # Rows of one size first: squares of float32 leave its range.
    largest = flat.abs().amax(dim=1, keepdim=True)
    usable = (largest > 0) & largest.isfinite()
    flat = torch.where(usable, flat / torch.where(usable, largest, 1.0), 0.0)
    lengths = flat.norm(dim=1, keepdim=True)
    return flat / torch.where(lengths > 0, lengths, 1.0)


def multiply_pairs(H: Float[Tensor, "n _"]) -> Float32[Features, "n n"]:
    """H H^T (n, n) of rows of length one, symmetric to the last digit."""
    n = len(H)
    cosines = np.empty((n, n), dtype=np.float32)
    parts = [slice(start, start + PAIRS_AT_ONCE) for start in range(0, n, PAIRS_AT_ONCE)]
    for k, some in enumerate(parts):
        own = H[some].float()
        for others in parts[k:]:
            block = (own @ H[others].float().T).cpu().numpy()
            cosines[some, others] = block
            cosines[others, some] = block.T
        # Of its own rows a block has both halves, which may differ in the last digit.
        cosines[some, some] = np.tril(cosines[some, some]) + np.tril(cosines[some, some], -1).T
    return cosines
