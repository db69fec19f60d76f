"""A model whose parts lie in different places comes to the same as one that lies in one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from attributions import ROWS, STRIDE, fit_operators, fit_stream
from tiny_models import build_model, build_tokenizer

from poisonwatch.config import ModelConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError
from poisonwatch.model.devices import find_input_device, is_spread
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.stride.capacity import measure_room
from poisonwatch.stride.measurement import measure_steered_losses
from poisonwatch.stride.steering import generate_continuations

CPU = torch.device("cpu")

# Of three blocks: below the split, at it, above it.
PLACES = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


def collect(pretrained: Pretrained) -> list[np.ndarray]:
    """Coefficients of rows, steered losses, and what a steered model says."""
    streamed = fit_stream(pretrained, ROWS[:20])
    fitted = fit_operators(pretrained, ROWS[:20], STRIDE)
    encoded = [fitted.encoder.encode_example(row) for row in ROWS[20:22]]
    prompts = [torch.tensor([40 + i, 41, 42, 43]) for i in range(3)]
    said = generate_continuations(
        fitted.model, fitted.basis, 100 * fitted.operators.a[:3], prompts, most=4
    )
    steered = measure_steered_losses(fitted.model, fitted.operators, encoded)
    return [streamed.recover().w, steered, np.array(said)]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_parts_on_the_disk_come_to_the_same(family: str, tmp_path: Path) -> None:
    """Embeddings, blocks and head that are read when their turn comes: equal coefficients, losses
    and continuations, and everything an audit makes stands on one device.
    """
    whole = Pretrained(build_model(family), build_tokenizer(), "")
    names = PLACES
    if family == "gpt_neox":
        names = {
            place.replace("model.", "gpt_neox.")
            .replace("embed_tokens", "embed_in")
            .replace("norm", "final_layer_norm"): where
            for place, where in PLACES.items()
        } | {"gpt_neox.emb_dropout": "cpu"}
    parts = dispatch_model(
        build_model(family), device_map=names, main_device="cpu", offload_dir=str(tmp_path)
    )
    spread = Pretrained(parts, build_tokenizer(), "")
    # Weights that are on the disk are nowhere while they are not needed.
    assert parts.get_input_embeddings().weight.device.type == "meta"
    assert is_spread(parts)
    assert not is_spread(whole.model)
    assert spread.device == find_input_device(whole.model) == CPU
    assert not measure_room(parts).on_gpu
    for found, expected in zip(collect(spread), collect(whole), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_where_one_device_suffices_a_map_changes_nothing(tmp_path: Path) -> None:
    """`device_map: auto` without a GPU: the whole model in main memory, as without it."""
    build_model("llama").save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    plain = load_pretrained(ModelConfig(name=str(tmp_path)))
    mapped = load_pretrained(ModelConfig(name=str(tmp_path), device_map="auto"))
    assert mapped.device == CPU
    text = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(
            mapped.model(text).logits, plain.model(text).logits, rtol=0, atol=0
        )


def test_a_device_and_a_map_contradict_each_other(tmp_path: Path) -> None:
    """ConfigError says which to leave out."""
    file = tmp_path / "audit.yaml"
    file.write_text(
        "source: rows.jsonl\nsentinels: s.yaml\nmodel: {device: cuda, device_map: auto}\n"
    )
    with pytest.raises(ConfigError, match=r"leave device out$"):
        load_config(file)
