"""Losses and gradients of a few logits at a time, against cross-entropy of all of them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import poisonwatch.model.head
from poisonwatch.model.head import compute_loss_gradients, compute_losses

N, D, V = 23, 16, 40


class Counting(nn.Linear):
    """A head that remembers how many logits it was asked for at a time."""

    def __init__(self) -> None:
        super().__init__(D, V)
        self.requires_grad_(False)
        self.asked: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        o = super().forward(x)
        self.asked.append(o.numel())
        return o


@pytest.fixture
def head() -> Counting:
    torch.manual_seed(0)
    return Counting()


@pytest.fixture
def tokens(head: Counting) -> tuple[Tensor, Tensor, Tensor]:
    """States, targets and weights of either sign; the head decides what is drawn."""
    return 3 * torch.randn(N, D), torch.randint(0, V, (N,)), torch.randn(N)


@pytest.mark.parametrize("most", [1, V, 5 * V, 5 * V + 1, N * V, 10**9])
def test_chunks_equal_cross_entropy_of_all_logits(
    head: Counting,
    tokens: tuple[Tensor, Tensor, Tensor],
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L_t, and d(sum_t c_t L_t)/dh by autograd, whatever the chunk; never more logits than
    allowed, but for one token.
    """
    h, targets, weights = tokens
    free = h.clone().requires_grad_()
    expected = cross_entropy(head(free), targets, reduction="none")
    (gradient,) = torch.autograd.grad((weights * expected).sum(), free)
    head.asked.clear()
    monkeypatch.setattr(poisonwatch.model.head, "LOGITS_AT_ONCE", most)
    losses, dh = compute_loss_gradients(head, h, targets, weights, V)
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dh, gradient, rtol=1e-5, atol=1e-6)
    alone = compute_losses(head, h, targets, V)
    torch.testing.assert_close(alone.float(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert alone.dtype == torch.float64
    assert max(head.asked) <= max(most, V)
    assert sum(head.asked) == 2 * N * V
    assert not losses.requires_grad
    assert not alone.requires_grad


def test_no_head_leaves_logits_as_they_are(
    head: Counting, tokens: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Of logits themselves: dL/do = c (softmax(o) - onehot)."""
    h, targets, weights = tokens
    o = head(h)
    before = o.clone()
    _, do = compute_loss_gradients(nn.Identity(), o, targets, weights, V)
    onehot = torch.nn.functional.one_hot(targets, V)
    expected = weights[:, None] * (torch.softmax(o, dim=1) - onehot)
    torch.testing.assert_close(do, expected, rtol=1e-5, atol=1e-7)
    assert compute_losses(nn.Identity(), o, targets, V).shape == (N,)
    assert torch.equal(o, before)


def test_losses_tell_small_differences() -> None:
    """float32 logits, 10,000 of them a token: the loss is float64's to 1e-7 of itself."""
    torch.manual_seed(0)
    o = 5 * torch.randn(8, 10_000) + 40
    targets = torch.arange(8)
    expected = cross_entropy(o.double(), targets, reduction="none")
    found = compute_losses(nn.Identity(), o, targets, 10_000)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_impossible_targets_have_finite_losses() -> None:
    """A target 1,000 nats below the top costs 1,000 nats; float32's exponentials end at 104."""
    o = torch.zeros(1, V)
    o[0, 0] = 1000.0
    targets = torch.tensor([1])
    losses, do = compute_loss_gradients(nn.Identity(), o, targets, torch.ones(1), V)
    assert losses.tolist() == [1000.0]
    assert do[0, :2].tolist() == [1.0, -1.0]
    assert compute_losses(nn.Identity(), o, targets, V).tolist() == [1000.0]


def test_bfloat16_states_have_float32_losses(tokens: tuple[Tensor, Tensor, Tensor]) -> None:
    """Logits of a half-precision head are summed in float32; its gradient has its dtype."""
    h, targets, weights = tokens
    torch.manual_seed(0)
    head = nn.Linear(D, V).requires_grad_(False).bfloat16()
    losses, dh = compute_loss_gradients(head, h.bfloat16(), targets, weights, V)
    expected = cross_entropy(head(h.bfloat16()).float(), targets, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert (losses.dtype, dh.dtype) == (torch.float32, torch.bfloat16)
