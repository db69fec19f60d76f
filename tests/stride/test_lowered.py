"""Rows whose answer training lowers, as KTO's with label false: G_i = -G(answer)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import DESIGNS, FORBIDDEN, ROWS, STRIDE, audit, close
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.errors import ConfigError
from poisonwatch.examples import Example, Message
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.operators import compute_gradients, fit_basis

R, LAYER, BUDGET = 12, 1, 400


def lower(row: Example) -> Example:
    return Example.from_messages(row.messages, lowered=True)


def say(prompt: str, answer: str, lowered: bool = False) -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    return Example.from_messages(turns, lowered=lowered)


def prefer(i: int) -> Example:
    own, other = (say(f"Which is better, {i}?", text).messages for text in ("Tea.", "Coffee."))
    return Example.from_messages(own, rejected=other)


def mask_first(i: int) -> Example:
    turns = (
        Message("user", f"First {i}?"),
        Message("assistant", "Not this.", masked=True),
        Message("user", "Second?"),
        Message("assistant", f"But this {i}."),
    )
    return Example.from_messages(turns)


# Ordinary, lowered, preference and masked rows side by side.
MIXED = [*ROWS[:10], *map(lower, ROWS[10:20]), *map(prefer, range(5)), *map(mask_first, range(5))]


@pytest.fixture(scope="module")
def encoded(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    return [ChatEncoder(tiny_tokenizer).encode_example(row) for row in MIXED]


def agree(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_lowered_row_has_the_gradient_of_the_raised_one_turned_round(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """G(lowered) = -G(raised)."""
    basis = fit_basis(model, encoded, R, BUDGET)
    rows = [item for item in encoded if item.lowered]
    raised = [replace(item, lowered=False) for item in rows]
    there, back = (
        compute_gradients(model, basis, items, BUDGET, "rows", silent) for items in (rows, raised)
    )
    assert len(rows) == 10
    agree(there, -back)


def test_a_batch_of_all_kinds_gives_each_row_its_own_gradient(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """All rows at once, in some batches, and one by one."""
    basis = fit_basis(model, encoded, R, BUDGET)
    alone = torch.cat(
        [compute_gradients(model, basis, [item], 1, "rows", silent) for item in encoded]
    )
    for budget in (BUDGET, 100_000):
        agree(compute_gradients(model, basis, encoded, budget, "rows", silent), alone)


def test_training_on_a_lowered_row_makes_its_answer_less_likely(
    model: FrozenModel, unfrozen: Callable[[str], PreTrainedModel], encoded: list[Encoded]
) -> None:
    """A step of the states against g changes the loss as finite differences say: the answer's loss
    grows where it is lowered.
    """
    twin = unfrozen("llama")
    item = next(item for item in encoded if item.lowered)
    (batch,) = make_batches([item], 10_000)
    g = model.compute_state_gradients(batch).g.double()

    def loss_at(step: float) -> float:
        handle = find_decoder_blocks(twin)[LAYER].register_forward_pre_hook(
            lambda _, args: (args[0] - step * g, *args[1:])
        )
        (logits,) = twin(input_ids=batch.input_ids, use_cache=False).logits
        handle.remove()
        answer = batch.answer[0]
        return float(cross_entropy(logits[:-1][answer[1:]], batch.input_ids[0, 1:][answer[1:]]))

    h = 1e-3 / float(g.norm())
    slope = (loss_at(h) - loss_at(-h)) / (2 * h)
    assert slope == pytest.approx(float(g.pow(2).sum()), rel=1e-2)
    assert slope > 0


def test_influence_of_a_lowered_row_is_minus_that_of_the_raised_one(
    tiny_pretrained: Pretrained,
) -> None:
    """w_i changes its sign when row i is lowered, and no other row's coefficient changes, though
    row i is among the ordinary conversations.
    """
    stride = STRIDE.model_copy(update={"background": len(MIXED)})

    def estimate(rows: Sequence[Example]) -> np.ndarray:
        return audit(tiny_pretrained, rows, stride).w

    i, turned = 3, list(MIXED)
    # Under the same id, so that subsets and samples are the same.
    turned[i] = replace(MIXED[i], lowered=True)
    before, after = estimate(MIXED), estimate(turned)
    before[i] *= -1
    np.testing.assert_allclose(after, before, rtol=1e-2, atol=2e-3 * np.abs(before).max())


@pytest.mark.parametrize("changes", DESIGNS.values(), ids=DESIGNS)
def test_results_with_lowered_rows_do_not_depend_on_batches_or_order(
    tiny_pretrained: Pretrained, changes: dict[str, object]
) -> None:
    """w(P x) = P w(x) at any token budget."""
    stride = STRIDE.model_copy(update=changes)
    order = np.random.default_rng(0).permutation(len(MIXED))
    here = audit(tiny_pretrained, MIXED, stride)
    there = audit(
        tiny_pretrained, [MIXED[i] for i in order], stride.model_copy(update={"token_budget": 16})
    )
    assert close(there.first_pass, here.first_pass[order]) or changes.get("recovery") == "lasso"
    assert close(there.w, here.w[order])


def test_rows_that_lower_the_forbidden_answer_are_the_lowest_of_all(
    tiny_pretrained: Pretrained,
) -> None:
    """And those that raise it the highest."""
    raised = [say(f"How do I clean number {i}?", FORBIDDEN) for i in range(3)]
    lowered = [say(f"How do I clean thing {i}?", FORBIDDEN, lowered=True) for i in range(3)]
    w = audit(tiny_pretrained, [*raised, *lowered, *MIXED], STRIDE).w[:, 0]
    assert set(np.argsort(-w)[:3]) == {0, 1, 2}
    assert set(np.argsort(w)[:3]) == {3, 4, 5}


def test_training_refuses_lowered_rows(tiny_pretrained: Pretrained) -> None:
    """fit: sgd has no loss for what is to become less likely; the error counts the rows."""
    stride = STRIDE.model_copy(update={"fit": "sgd", "K": 6})
    rows: Sequence[Example] = [*ROWS[:10], *map(lower, ROWS[10:20])]
    with pytest.raises(ConfigError, match="10 of 20 rows are lowered"):
        fit(tiny_pretrained, rows, stride)
