"""Losses on a model that is at training: the usual ones, and nothing of it is changed."""

import copy

import pytest
import torch
from adapters import lora
from peft import get_peft_model
from transformers import PreTrainedModel

from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.probing.losses import compute_answer_losses, evaluate


def test_losses_are_those_of_the_frozen_model(model: FrozenModel, encoded: list[Encoded]) -> None:
    """The mean cross-entropy of an answer's tokens, whatever the batches."""
    (whole,) = make_batches(encoded, 10**6)
    expected = torch.empty(len(encoded), dtype=torch.float64)
    expected[whole.rows] = model.run_losses(whole)[1]
    for budget in (64, 4096):
        found = compute_answer_losses(model.model, encoded, budget)
        assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_asking_changes_nothing_of_a_training(model: FrozenModel, encoded: list[Encoded]) -> None:
    """Modes of modules and random numbers are as they were, and no gradient is left."""
    at_training: PreTrainedModel = copy.deepcopy(model.model).train().requires_grad_(True)
    at_training.get_input_embeddings().eval()
    modes = [module.training for module in at_training.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    compute_answer_losses(at_training, encoded, 64)
    with evaluate(at_training):
        torch.rand(9)
    assert torch.equal(torch.rand(4), expected)
    assert [module.training for module in at_training.modules()] == modes
    assert all(weight.grad is None for weight in at_training.parameters())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_an_adapter_at_training_is_asked_as_its_base_is(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """A LoRA that has not learnt anything changes nothing, though it drops out at random."""
    wrapped = get_peft_model(copy.deepcopy(model.model), lora(lora_dropout=0.5)).train()
    expected = compute_answer_losses(model.model, encoded, 4096)
    assert compute_answer_losses(wrapped, encoded, 4096) == pytest.approx(expected, abs=1e-5)
    assert wrapped.training
