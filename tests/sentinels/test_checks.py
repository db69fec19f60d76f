"""Sentinels that cannot tell anything are named, and only they."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from poisonwatch.examples import Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.checks import (
    CERTAIN_LOSS,
    compute_forbidden_losses,
    find_duplicates,
    find_immovable,
    find_sentinel_problems,
)
from poisonwatch.sentinels.sentinel import Sentinel, SentinelProblem


def sentinel(
    name: str,
    prompt: str = "Who are you?",
    forbidden: str | None = "A wolf.",
    reference: str | None = "A model.",
) -> Sentinel:
    return Sentinel(name, (Message("user", prompt),), forbidden, reference, "identity")


def test_a_repeated_sentinel_is_named_with_the_first() -> None:
    """Same prompt and answers under another id; another prompt or answer is none."""
    found = find_duplicates(
        [
            sentinel("a"),
            sentinel("b"),
            sentinel("c", prompt="Name?"),
            sentinel("d", forbidden="A fox."),
            sentinel("e"),
        ]
    )
    assert [problem.sentinel_id for problem in found] == ["b", "e"]
    assert all("repeats a" in problem.problem for problem in found)


def test_an_answer_that_is_certain_cannot_become_likelier() -> None:
    """loss < CERTAIN is a problem; NaN (nothing forbidden) and larger losses are none."""
    sentinels = [sentinel("a"), sentinel("b", forbidden=None), sentinel("c")]
    found = find_immovable(sentinels, np.array([CERTAIN_LOSS / 2, np.nan, 2 * CERTAIN_LOSS]))
    assert [problem.sentinel_id for problem in found] == ["a"]


@torch.no_grad()
def test_losses_are_the_models_own(tiny_pretrained: Pretrained) -> None:
    """Mean cross-entropy over the answer tokens, as the whole model gives it."""
    sentinels = [
        sentinel("a"),
        sentinel("b", forbidden=None),
        sentinel("c", "Name a river, please.", "The Danube."),
    ]
    losses = compute_forbidden_losses(tiny_pretrained, sentinels, 64, 512)
    encoder = ChatEncoder(tiny_pretrained.tokenizer, 64)
    for k in (0, 2):
        encoded = encoder.encode(sentinels[k].add_answer(str(sentinels[k].forbidden)))
        ids = torch.from_numpy(encoded.input_ids.astype(np.int64))
        logits = tiny_pretrained.model(input_ids=ids[None]).logits[0, :-1]
        answer = torch.from_numpy(encoded.answer)[1:]
        assert losses[k] == pytest.approx(
            float(cross_entropy(logits[answer].float(), ids[1:][answer])), rel=1e-4
        )
    assert np.isnan(losses[1])


def test_healthy_sentinels_have_no_problems(tiny_pretrained: Pretrained) -> None:
    """A random model is certain of nothing."""
    assert (
        find_sentinel_problems(tiny_pretrained, [sentinel("a"), sentinel("c", "Name?")], 64, 512)
        == []
    )
    assert find_sentinel_problems(tiny_pretrained, [sentinel("a"), sentinel("b")], 64, 512) == [
        SentinelProblem("b", "repeats a, which then counts twice: remove one")
    ]
