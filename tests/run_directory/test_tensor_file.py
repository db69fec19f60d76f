"""A safetensors file with room in it."""

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from poisonwatch.run_directory.tensor_file import save_with_room


def test_what_is_filled_in_is_read_as_safetensors(tmp_path: Path) -> None:
    """Other tensors and the metadata as they were, and the room as it was filled, block by block;
    what nobody fills is 0.
    """
    path = tmp_path / "x.safetensors"
    others = {"a": torch.arange(5).float(), "b": torch.arange(3, dtype=torch.int8)}
    wanted = np.random.default_rng(0).integers(0, 256, (7, 3)).astype(np.uint8)
    wanted[6] = 0
    with save_with_room(path, others, {"format": "3"}, "room", (7, 3)) as room:
        room[4:6] = wanted[4:6]
        room[:4] = wanted[:4]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "3"}
        assert set(file.keys()) == {"a", "b", "room"}
        for name, tensor in others.items():
            assert torch.equal(file.get_tensor(name), tensor)
        np.testing.assert_array_equal(file.get_tensor("room").numpy(), wanted)


def test_the_file_is_no_larger_than_what_is_in_it(tmp_path: Path) -> None:
    """A hundred rows of 16 bytes more are 1,600 bytes more, and what the header's length is filled up
    to.
    """
    sizes = []
    for rows in (10, 110):
        path = tmp_path / f"{rows:03}.safetensors"
        with save_with_room(path, {"a": torch.zeros(2)}, {}, "room", (rows, 16)):
            pass
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] in range(1600, 1609)
