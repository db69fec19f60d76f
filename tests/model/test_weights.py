"""Weights that do not fit are not read: what they take is told before."""

from pathlib import Path

import pytest
import torch
from tiny_models import build_model, build_tokenizer

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model import weights
from poisonwatch.model.fingerprints import list_weights
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.model.weights import count_weight_bytes, require_room_for_weights

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several files."""
    path = tmp_path_factory.mktemp("model")
    build_model("llama").save_pretrained(path, max_shard_size="60KB")
    build_tokenizer().save_pretrained(path)
    return path


def test_headers_tell_what_weights_take(folder: Path) -> None:
    """All parameters, in each type of numbers."""
    files = list_weights(folder)
    assert len(files) > 1
    parameters = sum(weight.numel() for weight in build_model("llama").parameters())
    assert count_weight_bytes(files, torch.float32) == 4 * parameters
    assert count_weight_bytes(files, torch.bfloat16) == 2 * parameters


@pytest.mark.parametrize(
    ("free", "device", "advice"),
    [
        (120_000, CPU, "set model.dtype: bfloat16, or take a smaller model"),
        (120_000, GPU, "or set model.device_map: auto, which uses all GPUs together"),
        (50_000, CPU, "free on cpu: take a smaller model"),
    ],
)
def test_a_model_that_does_not_fit_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, device: torch.device, advice: str
) -> None:
    """One line: what is taken, what is free, what to change."""
    monkeypatch.setattr(weights, "measure_free_memory", lambda _: free)
    with pytest.raises(ModelError) as said:
        require_room_for_weights("tiny", folder, list_weights(folder), torch.float32, device)
    assert "the weights of tiny take 0.000188 GB as float32" in str(said.value)
    assert advice in str(said.value)
    with pytest.raises(ModelError, match="are free on cpu"):
        load_pretrained(ModelConfig(name=str(folder), device="cpu"))


def test_a_model_that_fits_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last byte; one that is quantised is not judged by numbers of one type."""
    needed = count_weight_bytes(list_weights(folder), torch.float32)
    monkeypatch.setattr(weights, "measure_free_memory", lambda _: needed)
    load_pretrained(ModelConfig(name=str(folder)))
    monkeypatch.setattr(weights, "measure_free_memory", lambda _: 0)
    config = (folder / "config.json").read_text()
    quantised = folder.parent / "quantised"
    quantised.mkdir(exist_ok=True)
    (quantised / "config.json").write_text('{"quantization_config": {}, ' + config.lstrip("{ \n"))
    require_room_for_weights("tiny", quantised, list_weights(folder), torch.float32, CPU)
