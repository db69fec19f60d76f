"""`directions.safetensors`: where each new row of an audit pushes the model, as far as sketches of
its gradient tell (`stride.sketch`): small enough to stay once the operators are pruned, so that
later audits know what this one had.

    ids (n, 32), sketch (n, k) uint8, sketch_scale (n, c)      of the new rows
    sketch_left (r, r), sketch_right (D, b), basis (D, r - 1)  what made sketches of them

The metadata names format, model fingerprint and layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.arrays import Array
from poisonwatch.atomic import replace_file
from poisonwatch.errors import RunError
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.stride.operators import Basis
from poisonwatch.stride.records import pack_ids
from poisonwatch.stride.sketch import RowSketches, Sketch, choose_sketch
from poisonwatch.stride.streamed import StreamedFit

DIRECTIONS_FILE = "directions.safetensors"
DIRECTIONS_FORMAT = "1"
BYTES_A_ROW = 1024
ROWS_AT_ONCE = 256
ID_BYTES = 32
LAYER_DIGITS = 6
# Types and numbers of dimensions.
TENSORS = {
    "ids": (torch.uint8, 2),
    "sketch": (torch.uint8, 2),
    "sketch_scale": (torch.float32, 2),
    "sketch_left": (torch.float32, 2),
    "sketch_right": (torch.float32, 2),
    "basis": (torch.float32, 2),
}


@dataclass(frozen=True, slots=True)
class SketchedDirections:
    """The new rows of an audit by their `sketches`, which the map `sketch` made."""

    ids: tuple[str, ...]
    basis: Basis
    sketch: Sketch
    sketches: RowSketches
    model: str
    layer: int

    def measure_pushes(self, G: Tensor) -> Array:
        """Pushes (n, Q) on queries with gradients G (Q, r, D), in background standard deviations,
        as far as sketches tell.
        """
        return self.sketches.measure(self.sketch.project_queries(G))


def save_directions(folder: Path, fitted: StreamedFit, new: int, model_fingerprint: str) -> None:
    """Write `directions.safetensors` of the first `new` rows of a fit, whole or not at all. Nothing
    where neither their gradients nor sketches of them were kept.
    """
    sketch = fitted.sketch
    if fitted.table.keeps_gradients:
        sketch = choose_sketch(fitted.preconditioner, BYTES_A_ROW)
    if sketch is None:
        return
    sketches = _collect_sketches(fitted, sketch, new)
    tensors = {
        "ids": torch.from_numpy(pack_ids(fitted.ids[:new]).copy()),
        "sketch": torch.from_numpy(sketches.codes),
        "sketch_scale": torch.from_numpy(sketches.scale),
        "sketch_left": sketch.left,
        "sketch_right": sketch.right,
        "basis": fitted.basis.directions.float(),
    }
    metadata = {
        "format": DIRECTIONS_FORMAT,
        "model_fingerprint": model_fingerprint,
        "layer": str(fitted.settings.layer),
    }
    on_cpu = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with replace_file(folder / DIRECTIONS_FILE) as part:
        save_file(on_cpu, part, metadata)


def _collect_sketches(fitted: StreamedFit, sketch: Sketch, new: int) -> RowSketches:
    if not fitted.table.keeps_gradients:
        all_rows = RowSketches.allocate(len(fitted.ids), sketch)
        fitted.table.copy_sketch_codes(all_rows.codes)
        scale = fitted.table.collect_sketch_scale()
        return RowSketches(all_rows.codes[:new].copy(), scale[:new].copy())
    parts = []
    for start in range(0, new, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, new))
        spread = fitted.measured.spread[rows].astype(np.float32)
        parts.append(sketch.encode(fitted.get_gradients(rows), spread))
    codes = np.concatenate([part.codes for part in parts])
    return RowSketches(codes, np.concatenate([part.scale for part in parts]))


def load_directions(
    run_dir: Path, seal: str | None = None, device: torch.device | str = "cpu"
) -> SketchedDirections:
    """Read `directions.safetensors`. Raises RunError where there is none, or it is damaged, of
    another format, or not what the audit wrote.
    """
    path = run_dir / DIRECTIONS_FILE
    if not path.is_file():
        raise RunError(f"{run_dir} holds no {DIRECTIONS_FILE}")
    require_unchanged(run_dir, DIRECTIONS_FILE, seal=seal)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if metadata.get("format") != DIRECTIONS_FORMAT:
        raise RunError(f"{path} has format {metadata.get('format')}, not {DIRECTIONS_FORMAT}")
    problem = _find_problem(tensors)
    layer = metadata.get("layer", "")
    if problem is None and not (layer.isascii() and layer.isdigit() and len(layer) < LAYER_DIGITS):
        problem = "it names no layer"
    if problem is not None:
        raise RunError(f"{path} is damaged: {problem}")
    scale = tensors["sketch_scale"].numpy()
    left, right = (tensors[f"sketch_{name}"].to(device) for name in ("left", "right"))
    return SketchedDirections(
        ids=tuple(bytes(row).hex() for row in tensors["ids"].numpy()),
        basis=Basis(tensors["basis"].to(device)),
        sketch=Sketch(left, right, scale.shape[1]),
        sketches=RowSketches(tensors["sketch"].numpy(), scale),
        model=metadata.get("model_fingerprint", ""),
        layer=int(layer),
    )


def _find_problem(tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with tensors that are to be as this module says; None where nothing is."""
    for name, (dtype, dimensions) in TENSORS.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.ndim != dimensions:
            return f"there is no {name} of {dimensions} dimensions and type {dtype}"
    n = len(tensors["sketch"])
    c = tensors["sketch_scale"].shape[1]
    r, (D, b) = len(tensors["sketch_left"]), tensors["sketch_right"].shape
    expected = {
        "ids": (n, ID_BYTES),
        "sketch": (n, (c * (r + b) + 1) // 2),
        "sketch_scale": (n, c),
        "sketch_left": (r, r),
        "basis": (D, r - 1),
    }
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            return f"{name} has the shape {tuple(tensors[name].shape)}, not {shape}"
    return None
