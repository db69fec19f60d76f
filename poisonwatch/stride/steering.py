"""Applying steering operators: what the frozen model says once its states are moved.

    z~_t = z_t + B(z_t)^T a ,     a in R^(r x D)        (STRIDE: Dagli et al., arXiv 2606.05165, figure 2)

One frozen run of a batch of b rows serves every operator that is tried on it: m operators a row make b x m pairs, which go through the
blocks above the split together; nothing below it is run again. The losses say what training asks of the pairs.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from poisonwatch.model.frozen import FrozenModel, Run

CoordinatesOf = Callable[[Tensor], Tensor]  # B: states (..., D) to coordinates (..., r)


def steer(z: Tensor, B: Tensor, a: Tensor) -> Tensor:
    """z~ = z + B^T a: states `z` (b, T, D), coordinates `B` (b, T, r) and operators `a` (b, m, r, D) to states (b, m, T, D)."""
    return z[:, None] + torch.einsum("btr,bmrd->bmtd", B, a.to(B.dtype))


def steered(model: FrozenModel, run: Run, basis: CoordinatesOf, a: Tensor) -> tuple[Tensor, ...]:
    """The logits o~ of every row of `run` under its own m operators `a` (b, m, r, D): b tensors (m, n_i, V), at its answer tokens."""
    return model.resume(run, steer(run.z, basis(run.z), a))


def continuations(
    model: FrozenModel, basis: CoordinatesOf, a: Tensor, prompt: Tensor, most: int, ends: Collection[int] = ()
) -> list[list[int]]:
    """What the model says after `prompt` (T,) under each of m operators `a` (m, r, D), greedily: m lists of at most `most` tokens.

    A token of `ends` ends an answer and is left out.
    """
    return model.continuations(prompt, lambda z: steer(z, basis(z), a[:, None])[:, 0], len(a), most, ends)


def log_likelihood(logp: Tensor, targets: Tensor) -> Tensor:
    """1/n sum_t logp[..., t, y_t] in nats a token: log-probabilities `logp` (..., n, V) and answer tokens `targets` (n,) to (...)."""
    index = targets.expand(logp.shape[:-1])[..., None]
    return logp.gather(-1, index)[..., 0].mean(dim=-1)


def fidelity(logp: Tensor, targets: Tensor) -> Tensor:
    """-1/|pairs| sum_pairs 1/n sum_t log softmax(o~_t)[y_t], over pairs of a row with the subsets that hold it.

    `logp` (pairs, n, V) are log softmax(o~) of the row's n answer tokens, `targets` (n,) these tokens.
    """
    return -log_likelihood(logp, targets).mean()


def stability(logp: Tensor, steered_logp: Tensor) -> Tensor:
    """1/|pairs| sum_pairs 1/n sum_t KL( softmax(o_t) || softmax(o~_t) ), over pairs of a row with subsets that do not hold it.

    `logp` (n, V) and `steered_logp` (pairs, n, V) are log softmax of o and o~. Zero without pairs, and for a = 0.
    """
    pairs, n, _ = steered_logp.shape
    return kl_div(steered_logp, logp.expand_as(steered_logp), reduction="sum", log_target=True) / max(1, pairs * n)


def linearity(y: Tensor, M: Tensor, gamma: float) -> Tensor:
    """|| M~ (M~^T M~ + gamma I)^-1 M~^T y - y ||^2: what no sum of rows' effects explains of the subsets' effects `y` (m,) on one row.

    `M` (m, p) is the sketch M~ = M R of these m subsets. Zero as gamma -> 0 where y is in the range of M~.
    """
    gram = M.mT @ M + gamma * torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    residual: Tensor = M @ torch.linalg.solve(gram, M.mT @ y) - y
    return residual.pow(2).sum()
