"""Sizes are read off a model's configuration, whatever its family calls them."""

from collections.abc import Callable

import pytest
from cost_cases import make_audit
from tiny_models import FAMILIES, VOCABULARY, WIDTH
from transformers import LlamaConfig, PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from poisonwatch.stride.cost_shapes import ModelShape


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_model(
    family: str, tiny_model: Callable[[str], PreTrainedModel]
) -> None:
    """Width, depth, vocabulary and weights; norms, biases and learned positions are left out."""
    model = tiny_model(family)
    shape = ModelShape.from_config(model.config)
    assert (shape.D, shape.depth, shape.layer, shape.V) == (WIDTH, 3, 1, VOCABULARY)
    assert (shape.F, shape.heads, shape.above) == (64, 4, 2)
    matrices = 0
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "wpe" not in name:
            matrices += weight.numel()
    assert shape.parameters == matrices


def test_a_token_passes_the_experts_that_it_is_sent_to() -> None:
    """Two of 32 experts are passed, and all are held."""
    config = Qwen3MoeConfig(
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        moe_intermediate_size=24,
        num_experts=32,
        num_experts_per_tok=2,
        vocab_size=300,
        mlp_only_layers=[],
    )
    shape = ModelShape.from_config(config)
    assert (shape.F, shape.F_held) == (48, 768)
    held = sum(weight.numel() for weight in Qwen3MoeForCausalLM(config).parameters())
    assert shape.parameters == pytest.approx(held, rel=0.02)
    assert shape.passed_weights < shape.parameters / 4


def test_half_precision_and_a_given_layer_are_taken_as_they_are() -> None:
    """What the audit file says goes before what would be derived."""
    shape = ModelShape.from_config(LlamaConfig(num_hidden_layers=10), layer=7, number_bytes=2)
    assert (shape.layer, shape.above, shape.number_bytes) == (7, 3, 2)


@pytest.mark.parametrize(
    ("changes", "rows", "tokens"),
    [
        ({}, 51, 2048),
        ({"n": 3}, 3, 120),
        ({"shortest": 10}, 204, 2048),
        ({"longest": 5000}, 125, 5000),
    ],
)
def test_the_largest_batch_is_full(changes: dict[str, int], rows: int, tokens: int) -> None:
    """Of the shortest rows most go into one; a row that is longer than the budget is a batch."""
    batch = make_audit(**changes).largest_batch
    assert (batch.rows, batch.tokens) == (rows, tokens)
    assert batch.answer_tokens == tokens // 2


@pytest.mark.parametrize(
    ("n", "trusted", "background", "known"),
    [(1000, 0, 100, 100), (1000, 400, 100, 460), (50, 0, 100, 50), (80, 80, 100, 80)],
)
def test_known_rows_are_the_trusted_ones_and_the_background_among_others(
    n: int, trusted: int, background: int, known: int
) -> None:
    """The background is drawn from all rows: those of it that are trusted count once."""
    audit = make_audit(n=n, trusted=trusted, background=background)
    assert audit.known == known
    assert audit.sampled == min(background, n)
