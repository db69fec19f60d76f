"""What trusted rows set, kept between audits: an audit of a few new rows then costs what these rows
cost, however many are trusted.

    basis B, sums of A and S, gradients G (m, r, D) and views (m, VIEWS, r - 1) at each of the
    model's splits, and faults (m,) of the trusted rows

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
from poisonwatch.stride.row_statistics import RowStatistics, SplitStatistics

# Files that are kept; the one used longest ago goes first.
KEPT_FILES = 4


def compute_moments_key(
    pretrained: Pretrained, stride: StrideConfig, layers: Sequence[int], ids: Sequence[str]
) -> str:
    """SHA-256 of all that the statistics depend on: `ids` of the trusted rows in the order in which
    they were drawn.
    """
    # Of the settings only those that these rows see: another damping or shift needs no new pass.
    shaping = {
        "library": hash_library(),
        "model": pretrained.identity,
        "layers": list(layers),
        "r": stride.r,
        "max_tokens": stride.max_tokens,
        "ids": list(ids),
    }
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()


def _locate_file(key: str) -> Path:
    return get_cache_folder() / "statistics" / f"{key}.safetensors"


def load_row_statistics(key: str, splits: int, device: torch.device) -> RowStatistics | None:
    """What was kept of so many splits under a key; None where nothing is, or the file is broken."""
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
    found = []
    for n in range(splits):
        power, tokens = float(numbers[f"power{n}"]), int(numbers[f"tokens{n}"])
        moments = Moments(tensors[f"A{n}"], tensors[f"S{n}"], power, tokens)
        split = SplitStatistics(
            basis=Basis(tensors[f"basis{n}"]),
            moments=moments,
            G=tensors[f"G{n}"],
            views=tensors[f"views{n}"].cpu().numpy(),
        )
        found.append(split)
    return RowStatistics(tuple(found), tensors["faults"].cpu().numpy())


def save_row_statistics(key: str, statistics: RowStatistics) -> bool:
    """Keep what was measured, and no more than the last few of such files; says whether it could.

    A full disk costs the cache, not the audit.
    """
    path = _locate_file(key)
    tensors = {"faults": torch.from_numpy(statistics.faults)}
    numbers: dict[str, str] = {}
    for n, split in enumerate(statistics.splits):
        moments = split.moments
        tensors |= {f"basis{n}": split.basis.directions, f"G{n}": split.G}
        tensors[f"views{n}"] = torch.from_numpy(split.views)
        tensors |= {f"A{n}": moments.A, f"S{n}": moments.S}
        numbers |= {f"power{n}": repr(moments.power), f"tokens{n}": str(moments.tokens)}
    try:
        make_private_folder(path.parent)
        kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        with replace_file(path, unique=True) as part:
            save_file(kept, part, numbers)
        files = sorted(path.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        for old in files[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError):
        return False
    return True
