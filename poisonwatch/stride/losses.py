"""What training asks of steered rows: fidelity, stability, linearity."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import kl_div


def log_likelihood(
    logp: Float[Tensor, "*pairs n V"], targets: Int64[Tensor, " n"]
) -> Float[Tensor, " *pairs"]:
    """1/n sum_t logp[..., t, y_t] in nats a token: log-probabilities `logp` (..., n, V) and answer
    tokens `targets` (n,) to (...).
    """
    index = targets.expand(logp.shape[:-1])[..., None]
    return logp.gather(-1, index)[..., 0].mean(dim=-1)


def fidelity(logp: Float[Tensor, "pairs n V"], targets: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """-1/|pairs| sum_pairs 1/n sum_t log softmax(o~_t)[y_t], over pairs of a row with the subsets
    that hold it.

    `logp` (pairs, n, V) are log softmax(o~) of the row's n answer tokens, `targets` (n,) these
    tokens.
    """
    return -log_likelihood(logp, targets).mean()


def stability(
    logp: Float[Tensor, "n V"], steered_logp: Float[Tensor, "pairs n V"]
) -> Float[Tensor, ""]:
    """1/|pairs| sum_pairs 1/n sum_t KL( softmax(o_t) || softmax(o~_t) ), over pairs of a row with
    subsets that do not hold it.

    `logp` (n, V) and `steered_logp` (pairs, n, V) are log softmax of o and o~. Zero without pairs,
    and for a = 0.
    """
    pairs, n, _ = steered_logp.shape
    same = logp.expand_as(steered_logp)
    total = kl_div(steered_logp, same, reduction="sum", log_target=True)
    # Not the mean of `kl_div`: without pairs it would be 0 / 0.
    return total / max(1, pairs * n)


def linearity(y: Float[Tensor, " m"], M: Float[Tensor, "m p"], gamma: float) -> Float[Tensor, ""]:
    """|| M~ (M~^T M~ + gamma I)^-1 M~^T y - y ||^2: what no sum of rows' effects explains of the
    subsets' effects `y` (m,) on one row.

    `M` (m, p) is the sketch M~ = M R of these m subsets. Zero as gamma -> 0 where y is in the range
    of M~.
    """
    gram = M.mT @ M + gamma * torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    residual: Tensor = M @ torch.linalg.solve(gram, M.mT @ y) - y
    return residual.pow(2).sum()
