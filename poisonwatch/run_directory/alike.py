"""Which rows are like a row to the model: by its own states, as far as an audit left them.

`operators.safetensors` has, of each new and each trusted row of an audit, what is known of it from
the states (`stride.similarity`): features (n, f) in bfloat16, and ids (n, 32). They are read where
they lie, without PyTorch. Letters: n rows, f features.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poisonwatch.run_directory.layout import OPERATORS_FILE

LENGTH_BYTES = 8  # of the header's length, before it
ROWS_PER_READ = 4096
LONGEST_HEADER = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class AlikeRow:
    """A row by its example id, and how alike it is: a cosine in [-1, 1]."""

    example_id: str
    similarity: float


def find_alike(run_dir: Path | None, example_id: str, most: int) -> list[AlikeRow] | None:
    """The rows of an audit that are most like one of them to the model, at most `most`; None where
    the audit left no states, or none of this row.
    """
    if run_dir is None or not (run_dir / OPERATORS_FILE).is_file():
        return None
    try:
        tensors = _map_tensors(run_dir / OPERATORS_FILE)
        ids, features = tensors["ids"], tensors["features"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if ids.ndim != 2 or features.ndim != 2 or len(ids) != len(features):
        return None
    own = np.frombuffer(bytes.fromhex(example_id), np.uint8)
    places = np.flatnonzero((ids == own).all(axis=1))
    if not len(places):
        return None
    cosines = _compute_cosines(features, int(places[0]))
    found: list[AlikeRow] = []
    for place in np.argsort(-cosines, kind="stable"):
        other = bytes(ids[place]).hex()
        if other != example_id and len(found) < most:
            found.append(AlikeRow(other, float(cosines[place])))
    return found


def _compute_cosines(features: NDArray[np.uint16], place: int) -> NDArray[np.float32]:
    """The cosine of each row's features (n, f) with those of the row at a place."""
    own = _widen(features[place : place + 1])[0]
    own = own / max(float(np.linalg.norm(own)), 1e-12)
    parts = []
    for start in range(0, len(features), ROWS_PER_READ):
        some = _widen(features[start : start + ROWS_PER_READ])
        parts.append(some @ own / np.maximum(np.linalg.norm(some, axis=1), 1e-12))
    return np.concatenate(parts).astype(np.float32)


def _widen(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors `ids` and `features` as they lie in a file. Raises OSError, ValueError, KeyError
    or TypeError where it is none such.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > LONGEST_HEADER:
            raise ValueError("no header of a safetensors file")
        header = json.loads(file.read(length))
    types = {"ids": ("U8", np.uint8), "features": ("BF16", np.uint16)}
    found: dict[str, NDArray[Any]] = {}
    for name, (said, type) in types.items():
        entry = header[name]
        if entry["dtype"] != said:
            raise ValueError(f"{name} are of another type")
        start = LENGTH_BYTES + length + entry["data_offsets"][0]
        found[name] = np.memmap(path, type, "r", offset=start, shape=tuple(entry["shape"]))
    return found
