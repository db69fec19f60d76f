"""Losses from the states that a language-model head sees, a few tokens at a time.

    L_t = log sum_v exp(o_tv) - o_t,target ,    dL_t/do_t = softmax(o_t) - onehot(target)

tokens x vocabulary is the largest array of a pass: 2,048 tokens of a vocabulary of 128,000 are
1 GB, several times over. Since the gradient has this closed form, logits of LOGITS_AT_ONCE numbers
are made, used and dropped before the next.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Of a vocabulary of 50,000: the answer tokens of a whole default batch, mostly. Fewer at a time
# cost a CPU more: it brings the head's weights into another order for every product.
LOGITS_AT_ONCE = 2**26

Head = Callable[[Tensor], Tensor]


def compute_loss_gradients(
    head: Head, h: Tensor, targets: Tensor, weights: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """L (n,) in nats a token, and dh (n, D) = d(sum_t weights_t L_t)/dh, of states h (n, D) that
    `head` turns into logits (n, V); `targets` (n,) and `weights` (n,). Float32 at least.
    """
    losses, gradients = list[Tensor](), list[Tensor]()
    for x, target in _split(h, targets, vocabulary):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            o = head(x)
        log_p = torch.log_softmax(o.detach(), dim=1, dtype=_widen(o.dtype))
        # The head may be on another device than the states.
        place = target.to(o.device)[:, None]
        losses.append(-log_p.gather(1, place)[:, 0].to(h.device))
        # In place: softmax, then the gradient, where the logarithms were.
        p = log_p.exp_()
        p.scatter_add_(1, place, p.new_full(place.shape, -1.0))
        gradients += torch.autograd.grad(o, x, p.to(o.dtype))
    dh = torch.cat(gradients)
    # Weights come last: among n x D numbers, not n x V.
    return torch.cat(losses), (dh * weights[:, None].to(_widen(dh.dtype))).to(dh.dtype)


def compute_losses(head: Head, h: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """L (n,) in nats a token, float64, of states h (n, D) and `targets` (n,), without a graph.

    Exponentials are float32 (or what the logits are), their sum is float64: differences of losses
    are small beside the losses.
    """
    losses = list[Tensor]()
    for x, target in _split(h, targets, vocabulary):
        with torch.no_grad():
            o = head(x)
            o = o.to(_widen(o.dtype))
            top = o.amax(dim=1, keepdim=True)
            # exp in place: the logits of the targets are taken before.
            hit = (o.gather(1, target.to(o.device)[:, None]) - top)[:, 0].double()
            lost = o.sub(top).exp_().sum(dim=1, dtype=torch.float64).log() - hit
            losses.append(lost.to(h.device))
    return torch.cat(losses)


def _split(h: Tensor, targets: Tensor, vocabulary: int) -> Iterator[tuple[Tensor, Tensor]]:
    """States and targets of at most LOGITS_AT_ONCE logits, one token at least."""
    most = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, len(h), most):
        yield h[start : start + most], targets[start : start + most]


def _widen(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
