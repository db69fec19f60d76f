"""A safetensors file with an array in it that is too large to be held in memory: it is filled in
where it lies.

https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

# Bytes that give the header's length.
LENGTH_BYTES = 8


@contextmanager
def save_with_room(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    name: str,
    shape: tuple[int, int],
) -> Iterator[NDArray[np.uint8]]:
    """Write contiguous tensors on the CPU, and yield the uint8 array of that `shape` under `name`,
    all 0, to fill in: it is mapped from the file.
    """
    small = save(dict(tensors), dict(metadata))
    length = int.from_bytes(small[:LENGTH_BYTES], "little")
    header = json.loads(small[LENGTH_BYTES : LENGTH_BYTES + length])
    data = memoryview(small)[LENGTH_BYTES + length :]
    # Last: bytes need no alignment.
    ends = [len(data), len(data) + shape[0] * shape[1]]
    header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": ends}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        file.write(data)
        start = file.tell()
        file.truncate(start + shape[0] * shape[1])
    room = np.memmap(path, np.uint8, "r+", offset=start, shape=shape)
    yield room
    room.flush()
