"""Measuring what every operator does to a query: to first order, or by steering the model with it.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) = -<G_q, a_k> + O(shift^2) ,     in nats a token

Positive means: subset k makes the query's answer likelier (STRIDE: Dagli et al., arXiv 2606.05165).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import cross_entropy

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import ForwardPass, FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.operators import Operators
from poisonwatch.stride.queries import PreparedQueries
from poisonwatch.stride.steering import compute_steered_losses


class Measurement(Protocol):
    """One way to y (K, Q) of K operators and Q queries, in nats a token."""

    def __call__(
        self,
        model: FrozenModel,
        operators: Operators,
        queries: PreparedQueries,
        token_budget: int,
        progress: Progress,
    ) -> Array: ...


def measure_first_order(
    model: FrozenModel,  # noqa: ARG001  (the measurement's signature)
    operators: Operators,
    queries: PreparedQueries,
    token_budget: int = 2048,  # noqa: ARG001
    progress: Progress = silent,  # noqa: ARG001
) -> Float64[Array, "K Q"]:
    """y (K, Q) from the queries' gradients: y_k(q) = -<G_q, a_k>. One backward pass a query,
    whatever K is.
    """
    return multiply_gradients(operators, queries.G)


def measure_forward(
    model: FrozenModel,
    operators: Operators,
    queries: PreparedQueries,
    token_budget: int = 2048,
    progress: Progress = silent,
) -> Float64[Array, "K Q"]:
    """y (K, Q) by applying each of the K operators to each of the queries' answers: y_k(q) =
    Loss(o_q) - Loss(o~_{q,k}).
    """
    losses = measure_steered_losses(model, operators, queries.answers, token_budget, progress)
    y: Array = (losses[0] - losses[1:]) @ queries.combine
    return y


MEASUREMENTS: dict[str, Measurement] = {
    "first-order": measure_first_order,
    "forward": measure_forward,
}


def measure(
    fitted: FittedOperators,
    operators: Operators,
    queries: PreparedQueries,
    stride: StrideConfig,
    progress: Progress = silent,
) -> Float64[Array, "K Q"]:
    """y (K, Q) of `operators`, by the configured measurement, in background standard deviations:
    divided by eta and by the length of the query's gradient, neither of which tells rows apart.
    """
    by = MEASUREMENTS[stride.measurement]
    y = by(fitted.model, operators, queries, stride.token_budget, progress)
    # A query that nothing moves has a gradient of length 0: 0 / 1, not 0 / 0.
    lengths = queries.G.flatten(1).norm(dim=1).double().cpu().numpy()
    scaled: Array = y / (operators.eta * np.where(lengths > 0, lengths, 1.0))
    return scaled


def multiply_gradients(operators: Operators, G: Float[Tensor, "Q r D"]) -> Float64[Array, "K Q"]:
    """-<G_q, a_k> (K, Q) of all operators and the gradients `G` (Q, r, D)."""
    y: Array = -(operators.a.flatten(1) @ G.flatten(1).T).cpu().double().numpy()
    return y


def measure_steered_losses(
    model: FrozenModel,
    operators: Operators,
    encoded: Sequence[Encoded],
    token_budget: int = 2048,
    progress: Progress = silent,
) -> Float64[Array, "losses Q"]:
    """Losses (1 + K, Q) of the Q conversations in nats a token: of the model as it is, then under
    each of the K operators.

    The blocks below the split run once a conversation; those above run for as many operators at a
    time as `token_budget` holds copies of it. Raises ModelError where a conversation has no answer
    token.
    """
    K = len(operators.a)
    losses = np.zeros((1 + K, len(encoded)))
    chunks = _split_operators(model, encoded, K, token_budget)
    total = K * len(encoded)
    for q, run, ks in progress(
        chunks, "measure", total, lambda chunk: chunk[2].stop - chunk[2].start
    ):
        with torch.no_grad():
            (after,) = compute_steered_losses(model, run, operators.basis, operators.a[None, ks])
            before = _compute_loss(run.o[0], run.targets[0])
            measured = torch.cat([before[None], after]).cpu().numpy()
        losses[0, q], losses[1 + ks.start : 1 + ks.stop, q] = measured[0], measured[1:]
    return losses


def _split_operators(
    model: FrozenModel, encoded: Sequence[Encoded], K: int, token_budget: int
) -> Iterator[tuple[int, ForwardPass, slice]]:
    """For each conversation, its place and its frozen run, with as many of the K operators at a
    time as the budget holds.
    """
    for q, item in enumerate(encoded):
        # Conversations alone, operators in chunks: there are few of the former, many of the latter.
        run = model.run(next(make_batches([item], 1, model.device)))
        m = max(1, token_budget // len(item))
        for start in range(0, K, m):
            yield q, run, slice(start, min(start + m, K))


def _compute_loss(o: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits `o` (n, V), in float64: differences of losses are small beside
    the losses.
    """
    return cross_entropy(o.double(), targets)
