"""Steered runs and the three losses, against loops and in their limits."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import FAMILIES
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.examples import Message
from poisonwatch.model.encoding import ChatEncoder, make_batches
from poisonwatch.model.frozen import ForwardPass, FrozenModel, find_decoder_blocks
from poisonwatch.stride.losses import fidelity, linearity, log_likelihood, stability
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
    found = generate_continuations(FrozenModel(free, 1), basis, a, prompt, most=6)
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
    whole = generate_continuations(model, basis, a, prompt, most=6)
    ends = {whole[0][2], whole[1][4]}
    cut = [next((t for t, token in enumerate(row) if token in ends), 6) for row in whole]
    assert generate_continuations(model, basis, a, prompt, 6, ends) == [
        row[:t] for row, t in zip(whole, cut, strict=True)
    ]
    long = torch.arange(600) % 250
    assert generate_continuations(model, basis, a, long, most=6) == generate_continuations(
        model, basis, a, long[-506:], most=6
    )


def test_log_likelihood_is_the_negative_mean_cross_entropy() -> None:
    """1/n sum_t log softmax(o_t)[y_t] = -cross_entropy(o, y), for any leading shape."""
    o, targets = draw(2, 3, 7, 11), torch.tensor([0, 3, 10, 5, 5, 1, 2])
    found = log_likelihood(o.log_softmax(-1), targets)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], -cross_entropy(o[i, j], targets))
    torch.testing.assert_close(fidelity(o[0].log_softmax(-1), targets), -found[0].mean())


def test_fidelity_of_certain_answers_is_zero() -> None:
    """log softmax(o~)[y] -> 0 as the answer's logit -> infinity."""
    targets = torch.tensor([1, 0])
    o = torch.zeros(1, 2, 3).scatter(-1, targets[None, :, None], 1e3)
    assert fidelity(o.log_softmax(-1), targets) == 0


def test_stability_is_the_mean_divergence_from_the_frozen_model() -> None:
    """1/|pairs| sum 1/n sum_t sum_v p_v (log p_v - log p~_v), written out."""
    o, moved = draw(4, 9), draw(3, 4, 9, seed=1)
    p = o.softmax(-1)
    naive = (
        sum(
            float((p[t] * (p[t] / moved[k, t].softmax(-1)).log()).sum())
            for k in range(3)
            for t in range(4)
        )
        / 12
    )
    assert float(stability(o.log_softmax(-1), moved.log_softmax(-1))) == pytest.approx(naive)


def test_stability_of_an_unmoved_model_is_zero_and_flat() -> None:
    """KL = 0 with gradient 0 at a = 0, and grows with the square of the move: KL(h v) / h^2 has a
    limit.
    """
    o, v = draw(4, 9), draw(2, 4, 9, seed=1)
    h = torch.zeros((), dtype=torch.float64, requires_grad=True)
    zero = stability(o.log_softmax(-1), (o + h * v).log_softmax(-1))
    (slope,) = torch.autograd.grad(zero, h)
    assert abs(float(zero.detach())) < 1e-15
    assert abs(float(slope)) < 1e-15
    curvature = [
        float(stability(o.log_softmax(-1), (o + s * v).log_softmax(-1))) / s**2
        for s in (1e-2, 1e-3)
    ]
    assert curvature[0] == pytest.approx(curvature[1], rel=0.02)
    assert curvature[1] > 0


def test_stability_without_pairs_is_zero() -> None:
    """Where every subset holds the row there is nothing to keep still."""
    assert stability(draw(4, 9).log_softmax(-1), torch.empty(0, 4, 9, dtype=torch.float64)) == 0


def test_linearity_of_effects_that_rows_explain_vanishes_with_the_ridge() -> None:
    """y = M~ w: the loss -> 0 as gamma -> 0."""
    M = draw(8, 3)
    y = M @ draw(3, seed=1)
    losses = [float(linearity(y, M, gamma)) for gamma in (1.0, 1e-2, 1e-4, 1e-8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-12 * float(y.pow(2).sum())


def test_linearity_of_effects_that_no_rows_explain_is_their_square() -> None:
    """M~^T y = 0, or gamma -> infinity: the loss is ||y||^2."""
    M, y = draw(8, 3), draw(8, seed=1)
    orthogonal = y - M @ torch.linalg.lstsq(M, y[:, None]).solution[:, 0]
    assert float(linearity(orthogonal, M, 1e-3)) == pytest.approx(float(orthogonal.pow(2).sum()))
    assert float(linearity(y, M, 1e12)) == pytest.approx(float(y.pow(2).sum()))


@pytest.mark.parametrize("p", [3, 8, 20])
def test_linearity_is_the_residual_of_kernel_ridge(p: int) -> None:
    """|| gamma (M~ M~^T + gamma I)^-1 y ||^2, the same by the push-through identity, for fewer and
    for more columns than subsets.
    """
    M, y, gamma = draw(8, p), draw(8, seed=1), 0.7
    residual = gamma * torch.linalg.solve(M @ M.T + gamma * torch.eye(8, dtype=torch.float64), y)
    assert float(linearity(y, M, gamma)) == pytest.approx(float(residual.pow(2).sum()))
