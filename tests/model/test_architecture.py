"""Where blocks and head are found, and which models are refused: real families are in
test_families.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, build_model
from torch import nn
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from poisonwatch.errors import ModelError
from poisonwatch.model.architecture import differ, find_decoder_blocks, inspect_architecture
from poisonwatch.model.frozen import FrozenModel

Models = Callable[[str], PreTrainedModel]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_the_decoder_stack(tiny_model: Models, family: str) -> None:
    """num_hidden_layers blocks, whatever their name; the head is the output embeddings."""
    found = inspect_architecture(tiny_model(family))
    assert len(found.blocks) == 3
    assert found.blocks is find_decoder_blocks(tiny_model(family))
    assert found.head is tiny_model(family).get_output_embeddings()
    assert found.ends_with_head


def test_a_list_of_the_same_length_outside_of_the_decoder_is_no_stack() -> None:
    """As many blocks as a vision tower has, which stands before the decoder."""
    model = build_model("gpt2", depth=2)
    model._modules = {"tower": nn.ModuleList([nn.Identity(), nn.Identity()]), **model._modules}
    assert find_decoder_blocks(model) is model.transformer.h


def test_model_without_a_stack_of_blocks_is_refused() -> None:
    """A depth that no stack of modules has belongs to no decoder."""
    model = build_model("gpt2", depth=2)
    model.config.n_layer = 7
    with pytest.raises(ModelError, match="no stack of 7 blocks"):
        find_decoder_blocks(model)


def test_headless_model_is_refused() -> None:
    """Without a head there is no loss."""
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 300,
    }
    with pytest.raises(ModelError, match="LlamaModel has no language-model head"):
        FrozenModel(LlamaModel(LlamaConfig(**sizes)), 0)


def _leave_out_a_block(model: PreTrainedModel) -> None:
    model.config.num_hidden_layers = 2


class _Backwards(nn.ModuleList):
    """Some of it are the last blocks first."""

    def __getitem__(self, places: Any) -> Any:
        return list(self)[::-1]


def _turn_the_blocks_round(model: PreTrainedModel) -> None:
    model.model.layers.__class__ = _Backwards


def _repeat_a_block(model: PreTrainedModel) -> None:
    layers = model.model.layers
    forward = layers[1].forward

    def twice(states: Any, **more: Any) -> Any:
        layers[2](states, **more)
        return forward(states, **more)

    layers[1].forward = twice


def _look_ahead(model: PreTrainedModel) -> None:
    forward = model.model.layers[1].forward
    model.model.layers[1].forward = lambda z, **more: forward(
        z + z.mean(dim=1, keepdim=True), **more
    )


def _double_the_states(model: PreTrainedModel) -> None:
    model.model.embed_tokens.register_forward_hook(lambda _, __, z: z.repeat(1, 2, 1))


def _add_the_embeddings(model: PreTrainedModel) -> None:
    forward, embed = model.forward, model.get_input_embeddings()

    def add(input_ids: torch.Tensor, **more: Any) -> Any:
        output = forward(input_ids=input_ids, **more)
        output.logits = output.logits + embed(input_ids).sum(dim=-1, keepdim=True)
        return output

    model.forward = add


def _need_an_image(model: PreTrainedModel) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("pixel_values are missing\nmore lines")

    model.model.forward = refuse


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_leave_out_a_block, "text alone does not go through block 2 of its blocks 0 to 2"),
        (_repeat_a_block, "text goes through its blocks 2 times"),
        (_turn_the_blocks_round, "text does not go through its blocks in their order"),
        (_look_ahead, "its tokens see later ones"),
        (_double_the_states, r"before its block 0 have the shape \(2, 4, 32\), not \(2, 2, 32\)"),
        (_add_the_embeddings, "its logits depend on more than the states that its head sees"),
        (_need_an_image, "it does not read text alone in torch.float32: pixel_values are missing;"),
    ],
)
def test_models_that_cannot_be_split_are_refused_with_what_was_found(
    change: Callable[[PreTrainedModel], None], words: str
) -> None:
    """One ModelError, when the model is split."""
    model = build_model("llama")
    change(model)
    with pytest.raises(ModelError, match=rf"LlamaForCausalLM cannot be split .*{words}"):
        FrozenModel(model, 1)


def test_numbers_differ_where_it_is_more_than_rounding() -> None:
    """By more than half of the digits that the type has, counted from the largest."""
    x = torch.tensor([1.0, 100.0])
    assert not differ(x, x + 0.01)
    assert differ(x, x + 0.1)
    assert not differ(x.bfloat16(), (x + 5).bfloat16())
    assert differ(x.bfloat16(), (x + 20).bfloat16())
    assert not differ(x * torch.nan, x * torch.nan)
