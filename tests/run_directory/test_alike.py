"""Which rows are like a row to the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from poisonwatch.run_directory.alike import find_alike
from poisonwatch.run_directory.layout import OPERATORS_FILE

IDS = [bytes([i]) * 32 for i in range(5)]


def write(folder: Path, features: torch.Tensor) -> None:
    ids = torch.tensor([list(id) for id in IDS], dtype=torch.uint8)
    save_file({"a": torch.ones(3), "ids": ids, "features": features}, folder / OPERATORS_FILE)


def test_rows_are_alike_by_the_cosine_of_their_states(tmp_path: Path) -> None:
    """In bfloat16, as they lie; equal to what PyTorch computes."""
    features = torch.randn(5, 7, generator=torch.manual_seed(0)).bfloat16()
    write(tmp_path, features)
    found = find_alike(tmp_path, IDS[2].hex(), 3)
    assert found is not None
    exact = torch.nn.functional.cosine_similarity(features.float(), features[2:3].float())
    order = [i for i in exact.argsort(descending=True).tolist() if i != 2][:3]
    assert [row.example_id for row in found] == [IDS[i].hex() for i in order]
    np.testing.assert_allclose([row.similarity for row in found], exact[order], rtol=1e-5)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_damaged_or_not_there_says_nothing(tmp_path: Path, content: bytes) -> None:
    """Nor does an audit that did not look at the row."""
    assert find_alike(None, IDS[0].hex(), 3) is None
    assert find_alike(tmp_path, IDS[0].hex(), 3) is None
    write(tmp_path, torch.ones(5, 2).bfloat16())
    assert find_alike(tmp_path, "ff" * 32, 3) is None
    (tmp_path / OPERATORS_FILE).write_bytes(content)
    assert find_alike(tmp_path, IDS[0].hex(), 3) is None
