"""Measuring what every operator does to a query: to first order, or by steering the model with it.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) = -<G_q, a_k> + O(shift^2) ,     in nats a token

Positive means: subset k makes the query's answer likelier (STRIDE: Dagli et al., arXiv 2606.05165).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from poisonwatch.arrays import Array
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import ForwardPass, FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operators import Operators
from poisonwatch.stride.steering import compute_steered_logits


def measure_first_order(operators: Operators, G: Tensor) -> Array:
    """y (K, Q) from the queries' gradients `G` (Q, r, D): y_k(q) = -<G_q, a_k>. One backward pass a
    query, whatever K is.
    """
    y: Array = -(operators.a.flatten(1) @ G.flatten(1).T).cpu().double().numpy()
    return y


def measure_forward(
    model: FrozenModel,
    operators: Operators,
    encoded: Sequence[Encoded],
    token_budget: int = 2048,
    progress: Progress = silent,
) -> Array:
    """y (K, Q) by applying each of the K operators to each of the Q conversations: y_k(q) =
    Loss(o_q) - Loss(o~_{q,k}).
    """
    losses = measure_steered_losses(model, operators, encoded, token_budget, progress)
    y: Array = losses[0] - losses[1:]
    return y


def measure_steered_losses(
    model: FrozenModel,
    operators: Operators,
    encoded: Sequence[Encoded],
    token_budget: int = 2048,
    progress: Progress = silent,
) -> Array:
    """Losses (1 + K, Q) of the Q conversations in nats a token: of the model as it is, then under
    each of the K operators.

    The blocks below the split run once a conversation; those above run for as many operators at a
    time as `token_budget` holds copies of it. Raises ModelError where a conversation has no answer
    token.
    """
    K = len(operators.a)
    losses = np.zeros((1 + K, len(encoded)))

    def chunks() -> Iterator[tuple[int, ForwardPass, slice]]:
        for q, item in enumerate(encoded):
            run = model.run(next(make_batches([item], 1, model.device)))
            m = max(1, token_budget // len(item))
            yield from ((q, run, slice(start, min(start + m, K))) for start in range(0, K, m))

    for q, run, ks in progress(
        chunks(), "measure", K * len(encoded), lambda chunk: chunk[2].stop - chunk[2].start
    ):
        with torch.no_grad():
            (o,) = compute_steered_logits(model, run, operators.basis, operators.a[None, ks])
            of_chunk = (
                torch.stack([_compute_loss(each, run.targets[0]) for each in (run.o[0], *o)])
                .cpu()
                .numpy()
            )
            losses[0, q], losses[1 + ks.start : 1 + ks.stop, q] = of_chunk[0], of_chunk[1:]
    return losses


def _compute_loss(o: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits `o` (n, V), in float64: differences of losses are small beside
    the losses.
    """
    return cross_entropy(o.double(), targets)
