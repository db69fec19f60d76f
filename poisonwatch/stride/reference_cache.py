"""What trusted rows set, kept between audits: an audit of a few new rows then costs what these rows
cost, however many are trusted.

    basis B, sums of A and S, gradients G (m, r, D), views (m, VIEWS, r - 1) and faults (m,) of the
    trusted rows

All of this is a function of the model and how it reads, of the settings that shape it, of the
trusted rows, and of this library's source: that is the key. Another trusted row, or another chat
template, is another key, so that an audit gives the same numbers with a cache and without.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from poisonwatch.atomic import replace_file
from poisonwatch.checkpoints.key import hash_library
from poisonwatch.config import StrideConfig
from poisonwatch.model.cache import get_cache_folder
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.permissions import make_private_folder
from poisonwatch.stride.operators import Basis, Moments
from poisonwatch.stride.row_statistics import RowStatistics

# Files that are kept; the one used longest ago goes first.
KEPT_FILES = 4


def compute_moments_key(
    pretrained: Pretrained, stride: StrideConfig, layer: int, ids: Sequence[str]
) -> str:
    """SHA-256 of all that the statistics depend on: `ids` of the trusted rows in the order in which
    they were drawn.
    """
    # Of the settings only those that these rows see: another damping or shift needs no new pass.
    shaping = {
        "library": hash_library(),
        "model": pretrained.identity,
        "layer": layer,
        "r": stride.r,
        "max_tokens": stride.max_tokens,
        "ids": list(ids),
    }
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()


def _locate_file(key: str) -> Path:
    return get_cache_folder() / "statistics" / f"{key}.safetensors"


def load_row_statistics(key: str, device: torch.device) -> RowStatistics | None:
    """What was kept under a key; None where nothing is, or the file is broken."""
    path = _locate_file(key)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            numbers = file.metadata()
            # The file itself cannot be iterated.
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        # Files are cleared away by when they were used last.
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    # A version without faults left it.
    if "faults" not in tensors:
        return None
    moments = Moments(tensors["A"], tensors["S"], float(numbers["power"]), int(numbers["tokens"]))
    return RowStatistics(
        basis=Basis(tensors["basis"]),
        moments=moments,
        G=tensors["G"],
        views=tensors["views"].cpu().numpy(),
        faults=tensors["faults"].cpu().numpy(),
    )


def save_row_statistics(key: str, statistics: RowStatistics) -> bool:
    """Keep what was measured, and no more than the last few of such files; says whether it could.

    A full disk costs the cache, not the audit.
    """
    path, moments = _locate_file(key), statistics.moments
    tensors = {
        "basis": statistics.basis.directions,
        "A": moments.A,
        "S": moments.S,
        "G": statistics.G,
        "views": torch.from_numpy(statistics.views),
        "faults": torch.from_numpy(statistics.faults),
    }
    try:
        make_private_folder(path.parent)
        kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        with replace_file(path, unique=True) as part:
            save_file(kept, part, {"power": repr(moments.power), "tokens": str(moments.tokens)})
        files = sorted(path.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        for old in files[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError):
        return False
    return True
