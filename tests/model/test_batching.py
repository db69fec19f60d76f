"""Tokens a batch: from bytes, and bytes against what a pass really keeps."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from slow_tests import sample
from tiny_models import FAMILIES, build_model
from torch import Tensor

from poisonwatch.config import StrideConfig
from poisonwatch.model import batching
from poisonwatch.model.batching import (
    MOST_TOKENS,
    adapt_token_budget,
    bytes_per_token,
    choose_token_budget,
)
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.head import LOGITS_AT_ONCE

GB = 2**30


@pytest.mark.parametrize("family", sample(FAMILIES, 2))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pass_keeps_no_more_than_the_formula_says(
    family: str, dtype: torch.dtype, encoded: list[Encoded]
) -> None:
    """Bytes that autograd saves from the first block to the head, a padded token: below the
    formula, and more than a quarter of it.
    """
    model = build_model(family, depth=6, hidden_size=128, intermediate_size=512).to(dtype)
    split = FrozenModel(model, 0)
    (batch,) = make_batches(encoded, 100_000)
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        split.compute_state_gradients(batch)
    measured = sum(kept.values()) / batch.input_ids.numel()
    assert bytes_per_token(model) / 4 < measured < bytes_per_token(model)


def test_budget_is_what_free_memory_holds() -> None:
    """The largest power of two with 16 LOGITS_AT_ONCE + budget x bytes <= .6 free; between the
    default and MOST_TOKENS.
    """
    for per_token in (10_000, 1_000_000, 12_000_000):
        for free in (0, 2 * GB, 24 * GB, 80 * GB, 640 * GB):
            budget = choose_token_budget(free, per_token, 2048)
            needed = 16 * LOGITS_AT_ONCE + budget * per_token
            assert budget.bit_count() == 1
            assert 2048 <= budget <= MOST_TOKENS
            assert needed <= 0.6 * free or budget == 2048
            assert needed + budget * per_token > 0.6 * free or budget == MOST_TOKENS
    assert choose_token_budget(80 * GB, 1_000_000, 2048) == 32_768


def test_a_little_memory_more_or_less_gives_the_same_batches() -> None:
    """What others take meanwhile changes no last digit: 78 to 80 GB free are one budget."""
    found = {choose_token_budget(int(gb * GB), 1_000_000, 2048) for gb in (78, 78.5, 79, 80)}
    assert len(found) == 1


def test_only_a_gpu_changes_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, and where the user set a budget, settings stay; on a GPU its free memory counts."""
    model: Any = build_model("llama")
    assert adapt_token_budget(model, StrideConfig()) == StrideConfig()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GB, 80 * GB))
    config = SimpleNamespace(get_text_config=lambda: model.config)
    gpu: Any = SimpleNamespace(config=config, dtype=torch.bfloat16)
    monkeypatch.setattr(batching, "find_input_device", lambda _: torch.device("cuda"))
    assert adapt_token_budget(gpu, StrideConfig(token_budget=2048)).token_budget == 2048
    assert adapt_token_budget(gpu, StrideConfig()).token_budget == MOST_TOKENS
