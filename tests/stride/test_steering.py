"""Steered runs and the three losses, against loops and in their limits."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import FAMILIES
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.examples import Message
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import ChatEncoder, make_batches
from poisonwatch.model.frozen import ForwardPass, FrozenModel
from poisonwatch.stride.operators import Basis
from poisonwatch.stride.steering import compute_steered_logits, generate_continuations, steer

Models = Callable[[str], PreTrainedModel]
R, D = 5, 32


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run_of(model: FrozenModel, tokenizer: PreTrainedTokenizerFast) -> ForwardPass:
    turns = [
        ("Hi", "Hello there"),
        ("Why?", "Because."),
        ("What is the capital of France?", "Paris"),
    ]
    encoded = [
        ChatEncoder(tokenizer).encode([Message("user", p), Message("assistant", a)])
        for p, a in turns
    ]
    (batch,) = make_batches(encoded, 10_000)
    return model.run(batch)


def test_steering_moves_every_token_by_its_own_combination_of_the_operators_rows() -> None:
    """z~_t = z_t + sum_j B_j(z_t) a_j, for every row, operator and token."""
    z, B, a = draw(2, 3, D), draw(2, 3, R, seed=1), draw(2, 4, R, D, seed=2)
    moved = steer(z, B, a)
    for i in range(2):
        for k in range(4):
            for t in range(3):
                torch.testing.assert_close(
                    moved[i, k, t], z[i, t] + sum(B[i, t, j] * a[i, k, j] for j in range(R))
                )


@pytest.mark.parametrize("family", FAMILIES)
def test_operators_of_nothing_leave_the_logits(
    tiny_model: Models, tiny_tokenizer: PreTrainedTokenizerFast, family: str
) -> None:
    """o~ = o for a = 0, whatever stands beside it."""
    model = FrozenModel(tiny_model(family), 1)
    run = run_of(model, tiny_tokenizer)
    a = draw(len(run.o), 3, R, D).float()
    a[:, 1] = 0
    basis = Basis(torch.linalg.qr(draw(D, R - 1))[0].float())
    for o, moved in zip(run.o, compute_steered_logits(model, run, basis, a), strict=True):
        torch.testing.assert_close(moved[1], o, rtol=1e-4, atol=1e-4)
        assert (moved[0] - o).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_continuations_are_those_of_whole_passes_under_the_operator(
    unfrozen: Models, family: str
) -> None:
    """argmax_v o~_t[v], token after token, without a cache, in float64; for several operators at
    once, the first of them zero.
    """
    free, basis = unfrozen(family), Basis(torch.linalg.qr(draw(D, R - 1))[0])
    a = 2 * draw(3, R, D, seed=3)
    a[0] = 0
    prompt = torch.arange(40, 60)

    def steered_block(each: Tensor) -> Callable[..., tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
        return lambda _, args, kwargs: ((args[0] + basis(args[0]) @ each, *args[1:]), kwargs)

    expected = []
    for each in a:
        ids = prompt[None]
        handle = find_decoder_blocks(free)[1].register_forward_pre_hook(
            steered_block(each), with_kwargs=True
        )
        for _ in range(6):
            ids = torch.cat(
                [ids, free(input_ids=ids, use_cache=False).logits[:, -1:].argmax(dim=-1)], dim=1
            )
        handle.remove()
        expected.append(ids[0, 20:].tolist())
    found = generate_continuations(FrozenModel(free, 1), basis, a, [prompt] * 3, most=6)
    assert found == expected
    assert found[1] != found[0] != found[2]


def test_continuations_stop_before_the_token_that_ends_them_and_within_the_window(
    unfrozen: Models,
) -> None:
    """Each answer is cut at its own first end; a prompt that fills the model's 512 positions loses
    its beginning.
    """
    model, basis = FrozenModel(unfrozen("gpt2"), 1), Basis(torch.linalg.qr(draw(D, R - 1))[0])
    a, prompt = 2 * draw(3, R, D, seed=3), torch.arange(40, 60)
    whole = generate_continuations(model, basis, a, [prompt] * 3, most=6)
    ends = {whole[0][2], whole[1][4]}
    cut = [next((t for t, token in enumerate(row) if token in ends), 6) for row in whole]
    assert generate_continuations(model, basis, a, [prompt] * 3, 6, ends) == [
        row[:t] for row, t in zip(whole, cut, strict=True)
    ]
    long = torch.arange(600) % 250
    assert generate_continuations(model, basis, a, [long] * 3, most=6) == generate_continuations(
        model, basis, a, [long[-506:]] * 3, most=6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_any_length_are_answered_side_by_side_as_alone(
    unfrozen: Models, family: str
) -> None:
    """The same tokens in a batch as one by one, in the prompts' order, each up to its own end; in
    one batch or more, by length.
    """
    model, basis = FrozenModel(unfrozen(family), 1), Basis(torch.linalg.qr(draw(D, R - 1))[0])
    a = 2 * draw(5, R, D, seed=3)
    prompts = [torch.arange(40, 40 + length) for length in (23, 20, 60, 26, 21)]
    alone = [
        generate_continuations(model, basis, each[None], [prompt], most=6)[0]
        for each, prompt in zip(a, prompts, strict=True)
    ]
    assert generate_continuations(model, basis, a, prompts, most=6) == alone
    ends = {alone[1][2], alone[3][0]}
    cut = [next((t for t, token in enumerate(row) if token in ends), 6) for row in alone]
    assert generate_continuations(model, basis, a, prompts, 6, ends) == [
        row[:t] for row, t in zip(alone, cut, strict=True)
    ]
    assert min(map(len, alone)) == 6 > cut[3] == 0
