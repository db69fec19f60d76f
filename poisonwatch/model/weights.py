"""What a model's weights take in memory, told by the headers of their files before any is read."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from poisonwatch.errors import ModelError
from poisonwatch.model.free_memory import measure_free_memory


def count_weight_bytes(files: Sequence[Path], dtype: torch.dtype) -> int:
    """Bytes of all weights of some safetensors files, as numbers of one type. Raises
    SafetensorError where one is damaged.
    """
    numbers = 0
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                numbers += math.prod(opened.get_slice(name).get_shape())
    return dtype.itemsize * numbers


def require_room_for_weights(
    name: str, folder: Path, files: Sequence[Path], dtype: torch.dtype, device: torch.device
) -> None:
    """Raises ModelError, in one line with what to change, where the weights of the model in a
    folder are more than is free on a device.
    """
    # Quantised weights are not numbers of one type, and stay as they are.
    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        return
    needed, free = count_weight_bytes(files, dtype), measure_free_memory(device)
    if needed <= free:
        return
    ways = ["take a smaller model"]
    if dtype.itemsize > 2 and needed * 2 <= free * dtype.itemsize:
        ways.insert(0, "set model.dtype: bfloat16")
    if device.type == "cuda":
        ways.append("set model.device_map: auto, which uses all GPUs together")
    kind = str(dtype).removeprefix("torch.")
    raise ModelError(
        f"the weights of {name} take {needed / 1e9:.3g} GB as {kind}, and {free / 1e9:.3g} GB are "
        f"free on {device}: {', or '.join(ways)}"
    )
