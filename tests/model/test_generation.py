"""Answers, token by token: from a model's cache and without one."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import FAMILIES, build_model
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.generation import can_read_on, generate_answers

Models = Callable[[str], PreTrainedModel]

PROMPTS = [torch.tensor([5, 6, 7, 8, 9]), torch.tensor([40, 41]), torch.tensor([90, 91, 92])]
MOST = 5


def move(z: Tensor) -> Tensor:
    """States as they come from a matrix of coordinates: in another order in memory."""
    return (1.5 * z).mT.contiguous().mT


def answer_one_by_one(model: PreTrainedModel, prompt: Tensor, block: int) -> list[int]:
    """The same without any of ours: the whole text, again and again."""
    text = prompt[None]
    hook = find_decoder_blocks(model)[block].register_forward_pre_hook(
        lambda _, args, kwargs: ((move(args[0]), *args[1:]), kwargs), with_kwargs=True
    )
    with hook, torch.no_grad():
        for _ in range(MOST):
            said = model(input_ids=text, use_cache=False).logits[:, -1].argmax(dim=-1)
            text = torch.cat([text, said[:, None]], dim=1)
    answer: list[int] = text[0, len(prompt) :].tolist()
    return answer


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_likeliest_tokens_with_a_cache_or_without(
    tiny_model: Models, family: str, keeps: bool
) -> None:
    """Prompts of three lengths side by side: each as alone, one whole pass a token."""
    model = tiny_model(family)
    block, head = find_decoder_blocks(model)[1], model.get_output_embeddings()
    found = generate_answers(model, block, head, PROMPTS, move, MOST, (), keeps)
    assert found == [answer_one_by_one(model, prompt, 1) for prompt in PROMPTS]
    assert can_read_on(model)


class _Forgetful(DynamicCache):
    """Remembers nothing of what was read."""

    def update(self, keys: Tensor, values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        return keys, values


def test_a_cache_that_does_not_serve_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is said from it differs, texts are read whole."""
    model = build_model("llama")
    expected = FrozenModel(model, 1).generate(PROMPTS, move, MOST)
    monkeypatch.setattr("transformers.models.llama.modeling_llama.DynamicCache", _Forgetful)
    assert not can_read_on(model)
    assert FrozenModel(model, 1).generate(PROMPTS, move, MOST) == expected
