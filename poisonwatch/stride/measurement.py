"""Measuring what every operator does to a query: to first order, or by steering the model with it.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) = -<G_q, a_k> + O(shift^2) ,     in nats a token

Positive means: subset k makes the query's answer likelier (STRIDE: Dagli et al., arXiv 2606.05165).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel, SplitRun
from poisonwatch.model.halving import InParts, compute_batches, halve_places
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
    # No part of any query is an answer of a probe that the model overflows on.
    losses[:, ~queries.combine.any(axis=1)] = 0.0
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


@dataclass(frozen=True, slots=True)
class _Steering:
    """One conversation, at place `q`, to be steered by the operators `ks`: its `run`, and its loss
    `before` in nats a token.
    """

    q: int
    run: SplitRun
    before: float
    ks: Sequence[int]

    def halve(self) -> tuple["_Steering", ...]:
        """By half of the operators, and by the others; none where there is one."""
        return tuple(replace(self, ks=half) for half in halve_places(self.ks))


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

    def steer(work: _Steering) -> Array:
        a = operators.a[None, work.ks[0] : work.ks[-1] + 1]
        (after,) = compute_steered_losses(model, work.run, operators.basis, a)
        steered: Array = after.cpu().numpy()
        return steered

    K = len(operators.a)
    losses = np.zeros((1 + K, len(encoded)))
    by_parts = InParts(steer, _Steering.halve)
    works = _split_operators(model, encoded, K, token_budget)
    for work in progress(works, "measure", K * len(encoded), lambda work: len(work.ks)):
        losses[0, work.q] = work.before
        for part, after in by_parts(work):
            losses[1 + np.array(part.ks), part.q] = after
    return losses


def _split_operators(
    model: FrozenModel, encoded: Sequence[Encoded], K: int, token_budget: int
) -> Iterator[_Steering]:
    """Each conversation's frozen run, with as many of the K operators at a time as the budget
    holds.
    """
    alone = compute_batches(model.run_losses)
    # Conversations alone, operators in chunks: there are few of the former, many of the latter.
    for q, item in enumerate(encoded):
        m = max(1, token_budget // len(item))
        for _, (run, before) in alone(next(make_batches([item], 1, model.device))):
            for start in range(0, K, m):
                yield _Steering(q, run, float(before), range(start, min(start + m, K)))
