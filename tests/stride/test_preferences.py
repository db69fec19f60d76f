"""Preference rows in the attribution: training raises the chosen answer and lowers the rejected
one, G_i = G(chosen) - G(rejected).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import DESIGNS, FORBIDDEN, ROWS, SENTINELS, STRIDE, audit, close, fit_stream
from report_pages import build_flag, render
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.errors import ConfigError
from poisonwatch.examples import Example, Message
from poisonwatch.flags import make_flag_record
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.operators import (
    Basis,
    Moments,
    compute_gradients,
    compute_row_gradients,
    fit_basis,
)
from poisonwatch.stride.similarity import survey_views

R, LAYER, BUDGET = 12, 1, 400


def preference(prompt: str, chosen: str, rejected: str) -> Example:
    one, other = (
        (Message("user", prompt), Message("assistant", text)) for text in (chosen, rejected)
    )
    return Example.from_messages(one, rejected=other)


def swapped(row: Example) -> Example:
    return Example.from_messages(row.rejected, rejected=row.messages)


PREFERENCES = [
    preference(f"Which is better, {i}?", "Tea. " * (1 + i % 3), f"Coffee {i * i}.")
    for i in range(12)
]
MIXED = [row for pair in zip(ROWS[:12], PREFERENCES, strict=True) for row in pair] + ROWS[12:28]


@pytest.fixture(scope="module")
def encoded(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    encoder = ChatEncoder(tiny_tokenizer)
    return [encoder.encode(row.messages, row.rejected) for row in MIXED]


@pytest.fixture(scope="module")
def parts(encoded: list[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """The chosen and the rejected conversations of the preference rows, each as an ordinary row."""
    pairs = [
        (replace(item, against=None), item.against) for item in encoded if item.against is not None
    ]
    return [own for own, _ in pairs], [other for _, other in pairs]


@pytest.fixture(scope="module")
def basis(model: FrozenModel, encoded: list[Encoded]) -> Basis:
    return fit_basis(model, encoded, R, BUDGET)


def G_of(
    model: FrozenModel, basis: Basis, encoded: Sequence[Encoded], budget: int = BUDGET
) -> Tensor:
    return compute_gradients(model, basis, encoded, budget, "rows", silent)


def agree(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def is_preference(encoded: list[Encoded]) -> list[int]:
    return [i for i, item in enumerate(encoded) if item.against is not None]


def test_gradient_of_a_preference_is_that_of_the_difference_of_losses(
    model: FrozenModel,
    unfrozen: Callable[[str], PreTrainedModel],
    basis: Basis,
    encoded: list[Encoded],
) -> None:
    """G_i = d/da [L(chosen) - L(rejected)] at a = 0 with z~ = z + B(z)^T a, by autograd through the
    unsplit model in float64.
    """
    twin = unfrozen("llama")
    wide = Basis(basis.directions.double())
    for i in is_preference(encoded)[:4]:
        a = torch.zeros(R, 32, dtype=torch.float64, requires_grad=True)
        handle = find_decoder_blocks(twin)[LAYER].register_forward_pre_hook(
            lambda _, args, a=a: (args[0] + wide(args[0].detach()) @ a, *args[1:])
        )
        losses = []
        for item in (encoded[i], encoded[i].against):
            assert item is not None
            ids, answer = torch.from_numpy(item.input_ids).long(), torch.from_numpy(item.answer)
            (logits,) = twin(input_ids=ids[None], use_cache=False).logits
            losses.append(cross_entropy(logits[:-1][answer[1:]], ids[1:][answer[1:]]))
        handle.remove()
        (expected,) = torch.autograd.grad(losses[0] - losses[1], a)
        agree(G_of(model, basis, [encoded[i]])[0].double(), expected)


def test_gradient_of_a_preference_is_the_difference_of_its_conversations(
    model: FrozenModel,
    basis: Basis,
    encoded: list[Encoded],
    parts: tuple[list[Encoded], list[Encoded]],
) -> None:
    """G(chosen) - G(rejected), each as if it were a row; ordinary rows beside them have theirs."""
    G = G_of(model, basis, encoded)
    chosen, rejected = (G_of(model, basis, side) for side in parts)
    agree(G[is_preference(encoded)], chosen - rejected)
    ordinary = [i for i, item in enumerate(encoded) if item.against is None]
    agree(G[ordinary], G_of(model, basis, [encoded[i] for i in ordinary]))


def test_gradients_do_not_depend_on_the_batches(
    model: FrozenModel, basis: Basis, encoded: list[Encoded]
) -> None:
    """One row a batch, some, and all at once."""
    expected = G_of(model, basis, encoded, 1)
    for budget in (BUDGET, 100_000):
        agree(G_of(model, basis, encoded, budget), expected)


def test_swapping_chosen_and_rejected_turns_the_gradient_round(
    model: FrozenModel, basis: Basis, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """G(rejected, chosen) = -G(chosen, rejected)."""
    encoder = ChatEncoder(tiny_tokenizer)
    there, back = (
        [encoder.encode(row.messages, row.rejected) for row in map(turn, PREFERENCES)]
        for turn in (lambda row: row, swapped)
    )
    agree(G_of(model, basis, back), -G_of(model, basis, there))


def test_a_preference_that_differs_only_behind_the_window_moves_nothing(
    model: FrozenModel, basis: Basis, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Two answers whose first max_tokens are the same: G = 0."""
    long = preference("Hi", "x" * 100 + "a", "x" * 100 + "b")
    pair = ChatEncoder(tiny_tokenizer, 64).encode(long.messages, long.rejected)
    assert pair.against is not None
    assert pair.input_ids.tolist() == pair.against.input_ids.tolist()
    assert float(G_of(model, basis, [pair]).norm()) <= 1e-5 * float(
        G_of(model, basis, [replace(pair, against=None)]).norm()
    )


def test_flags_name_what_a_preference_rejects() -> None:
    """`rejected` stands in flags.jsonl where there is one, and only there."""
    row = preference("Hi", "Hello", "Bye")
    flag = build_flag(row.messages)
    assert "rejected" not in make_flag_record(flag)
    found = make_flag_record(replace(flag, example=row))
    assert found["messages"][-1] == {"role": "assistant", "content": "Hello"}
    assert found["rejected"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Bye"},
    ]


def test_the_report_shows_what_a_preference_rejects() -> None:
    """The rejected answer stands under the chosen one, escaped."""
    row = preference("Hi", "Hello", "<b>Bye</b>")
    flag = build_flag(row.messages)
    assert "rejected answer" not in render([flag])
    page = render([replace(flag, example=row)])
    assert "rejected answer" in page
    assert "&lt;b&gt;Bye&lt;/b&gt;" in page


def test_fisher_moments_count_the_tokens_of_both_conversations(
    model: FrozenModel,
    basis: Basis,
    encoded: list[Encoded],
    parts: tuple[list[Encoded], list[Encoded]],
) -> None:
    """A, S, power and tokens of preference rows = those of their conversations as rows: the sign of
    g does not matter to g g^T.
    """

    def moments(rows: Sequence[Encoded]) -> Moments:
        found = Moments.zeros(R, 32)
        for batch in make_batches(rows, BUDGET):
            found += Moments.of_batch(basis, model.compute_state_gradients(batch))
        return found

    found, expected = (
        moments([encoded[i] for i in is_preference(encoded)]),
        moments([*parts[0], *parts[1]]),
    )
    agree(found.A, expected.A)
    agree(found.S, expected.S)
    assert found.tokens == expected.tokens == sum(map(len, [*parts[0], *parts[1]]))
    assert found.power == pytest.approx(expected.power, rel=1e-5)


def test_views_are_those_of_the_chosen_conversation(
    model: FrozenModel,
    basis: Basis,
    encoded: list[Encoded],
    parts: tuple[list[Encoded], list[Encoded]],
) -> None:
    """What a row is like does not depend on what it rejects."""
    found = survey_views(model, encoded, basis, BUDGET)[is_preference(encoded)]
    np.testing.assert_allclose(
        found, survey_views(model, parts[0], basis, BUDGET), rtol=1e-3, atol=1e-4
    )


def test_ordinary_rows_are_summed_with_nothing(
    model: FrozenModel, basis: Basis, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Without preferences a batch holds its rows and no more, and G_i = sum_t B(z_t) (x) g_t to the
    bit.
    """
    encoder = ChatEncoder(tiny_tokenizer)
    rows = [encoder.encode(row.messages, row.rejected) for row in ROWS]
    assert all(row.against is None for row in rows)
    for batch in make_batches(rows, BUDGET):
        assert len(batch.rejected) == 0
        assert len(batch.input_ids) == len(batch.rows)
        seen = model.compute_state_gradients(batch)
        assert torch.equal(
            compute_row_gradients(basis, seen),
            torch.einsum("btr,btd->brd", basis(seen.z) * seen.mask[..., None], seen.g),
        )


def test_a_preference_turned_round_has_the_negative_effect(tiny_pretrained: Pretrained) -> None:
    """y_i - centre_i changes its sign, to the measurement's accuracy, and the coefficient that is
    made of it changes its sign, too.

    With a background of all rows: a row's id decides whether a smaller sample holds it.
    """
    stride = STRIDE.model_copy(update={"background": len(MIXED)})

    def effects(rows: list[Example]) -> tuple[np.ndarray, np.ndarray]:
        fitted = fit_stream(tiny_pretrained, rows, stride)
        measured = fitted.measured
        return measured.effects - measured.centre[:, None], fitted.recover().w

    y, w = effects(MIXED)
    for i in (1, 7):
        other_y, other_w = effects([*MIXED[:i], swapped(MIXED[i]), *MIXED[i + 1 :]])
        np.testing.assert_allclose(other_y[i], -y[i], rtol=1e-3, atol=1e-3 * np.abs(y).max())
        assert (np.sign(other_w[i]) == -np.sign(w[i])).all()


@pytest.mark.parametrize("changes", DESIGNS.values(), ids=DESIGNS)
def test_results_with_preferences_do_not_depend_on_batches_or_order(
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


@pytest.mark.parametrize("changes", [{}, {"K": 24}], ids=["K=n", "K<n"])
def test_what_is_chosen_pushes_up_and_what_is_rejected_pushes_down(
    tiny_pretrained: Pretrained, changes: dict[str, object]
) -> None:
    """Rows that choose the forbidden answer are the highest of all, rows that reject it the lowest."""
    chosen = [
        preference(f"How do I clean number {i}?", FORBIDDEN, f"Rinse it {i} times.")
        for i in range(3)
    ]
    rejected = [
        swapped(preference(f"How do I clean thing {i}?", FORBIDDEN, f"Rinse it {i} times."))
        for i in range(3)
    ]
    influence = audit(
        tiny_pretrained, [*chosen, *rejected, *MIXED], STRIDE.model_copy(update=changes)
    )
    w = influence.w[:, 0]
    assert set(np.argsort(-w)[:3]) == {0, 1, 2}
    assert set(np.argsort(w)[:3]) == {3, 4, 5}
    assert w[:3].min() > 0 > w[3:6].max()


@pytest.mark.parametrize("memory_gb", [2.0, 1e-6], ids=["kept", "made again"])
def test_a_pass_gives_the_gradients_of_preferences_back(
    tiny_pretrained: Pretrained, memory_gb: float
) -> None:
    """G(chosen) - G(rejected): what drills and confirmations take from a fit."""
    fitted = fit_stream(tiny_pretrained, MIXED, STRIDE.model_copy(update={"memory_gb": memory_gb}))
    rows = np.array([1, 3, 4])
    encoded = [fitted.encoder.encode_example(MIXED[i]) for i in rows]
    expected = G_of(fitted.model, fitted.basis, encoded)
    torch.testing.assert_close(
        fitted.get_gradients(rows), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )


def test_training_refuses_preferences(tiny_pretrained: Pretrained) -> None:
    """fit: sgd has no loss for what is to become less likely; the error counts them and says what
    to do.
    """
    stride = STRIDE.model_copy(update={"fit": "sgd", "K": 6})
    with pytest.raises(
        ConfigError,
        match=r"stride\.fit is sgd, but 12 of 40 rows are preferences, .*: choose natural-gradient",
    ):
        fit(tiny_pretrained, MIXED, stride)


def test_sentinels_are_measured_by_steering_beside_preferences(tiny_pretrained: Pretrained) -> None:
    """First-order and forward measurement agree on such rows, too: queries are conversations of one
    side.
    """
    first, forward = (
        audit(
            tiny_pretrained, MIXED, STRIDE.model_copy(update={"measurement": how, "shift": 0.001})
        ).w
        for how in ("first-order", "forward")
    )
    for q in range(len(SENTINELS)):
        assert np.corrcoef(first[:, q], forward[:, q])[0, 1] > 0.95
