"""What an audit would take on this machine: an estimate from sizes alone, that loads no model and
no torch.
"""

import json
import re
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from poisonwatch.config import DEFAULT_MODEL
from poisonwatch.model.adapter import get_base_name, holds_adapter

# The demo's 570 rows have 23,100 estimated tokens and 34,500 with a chat template's own. With one
# thread its audit takes 318 processor seconds, 15 of them whatever the rows, where the core
# multiplies small matrices at 112 GFLOP/s: the median of 212 measurements while the audit ran.
# Other work ran beside it, so that it is rather too long than too short.
START_UP_S = 15.0
DEMO_S = 318.0
DEMO_TOKENS = 34_500
DEMO_GFLOPS = 112.0
DEFAULT_PARAMETERS = 134_515_008
WORK_PER_TOKEN = (DEMO_S - START_UP_S) * DEMO_GFLOPS / (DEMO_TOKENS * DEFAULT_PARAMETERS)
"""GFLOP of an audit for each token and parameter, all stages together."""

# "Qwen2.5-0.5B-Instruct", "SmolLM2-135M", "Mixtral-8x7B"
_SIZE = re.compile(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)
_UNITS = {"m": 1e6, "b": 1e9}
# So small that no BLAS shares them out among cores: threads that wait for each other on a busy
# machine would be measured instead.
MATRICES, MATRIX_SIDE = 16, 64
MEASURED_S = 0.1


def count_parameters(name: str) -> float | None:
    """How many parameters a model has: by the headers of its files where it is a folder, else by
    its name, as in Qwen2.5-0.5B; None where neither tells.
    """
    if name == DEFAULT_MODEL:
        return DEFAULT_PARAMETERS
    folder = Path(name)
    if holds_adapter(folder):
        base = get_base_name(folder)
        if base is None:
            return None
        beside = folder.parent / base
        return count_parameters(str(beside) if beside.is_dir() else base)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return float(sum(sum(_list_sizes(file)) for file in files))
    found = _SIZE.search(folder.name.replace("_", "-"))
    if found is None:
        return None
    experts, size, unit = found.groups()
    return int(experts or 1) * float(size) * _UNITS[unit.lower()]


def _list_sizes(file: Path) -> Iterator[int]:
    """The sizes of a safetensors file's tensors, in elements; its header holds them."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield int(np.prod(tensor["shape"]))


def measure_gflops(cores: int) -> float:
    """How fast so many cores multiply float32 matrices where nothing else runs, in GFLOP/s: the
    best of what one of them does in a tenth of a second, times their number.
    """
    random = np.random.default_rng(0)
    matrices = random.random((MATRICES, MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    product = np.empty_like(matrices)
    best = float("inf")
    end = time.perf_counter() + MEASURED_S
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(matrices, matrices, out=product)
        best = min(best, time.perf_counter() - start)
    return cores * MATRICES * 2 * MATRIX_SIDE**3 / best / 1e9


def has_gpu() -> bool:
    """Whether an NVIDIA driver is there; then an audit takes a small part of what processors
    do.
    """
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def estimate_seconds(tokens: int, parameters: float, gflops: float) -> float:
    """About how long an audit takes on processors, in seconds; `tokens` are of new and trusted rows
    together, with a chat template's own.

    Right within a factor of two or three: groups of flagged rows and many sentinels take longer.
    """
    return START_UP_S + tokens * parameters * WORK_PER_TOKEN / gflops
