from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import Encoded
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.influence import Query, build_queries
from poisonwatch.stride.measurement import measure_first_order, measure_forward
from poisonwatch.stride.operators import Operators, compute_gradients


@dataclass(frozen=True, slots=True)
class PreparedQueries:
    """Queries ready to be measured: `answers` (A) conversations, `combine` (A, Q) how queries are
    made of them, gradients `G` (Q, r, D).
    """

    answers: tuple[Encoded, ...]
    combine: Array
    G: Tensor

    def measure(
        self,
        fitted: Fitted,
        operators: Operators,
        stride: StrideConfig,
        progress: Progress = silent,
    ) -> Array:
        """y (K, Q), in spreads: divided by eta and by the length of the query's gradient, neither
        of which tells rows apart.
        """
        if stride.measurement == "forward":
            y = (
                measure_forward(
                    fitted.model, operators, self.answers, stride.token_budget, progress
                )
                @ self.combine
            )
        else:
            y = measure_first_order(operators, self.G)
        lengths = self.G.flatten(1).norm(dim=1).double().cpu().numpy()
        scaled: Array = y / (operators.eta * np.where(lengths > 0, lengths, 1.0))
        return scaled


def prepare_queries(
    fitted: Fitted, sentinels: Sequence[Sentinel], stride: StrideConfig, progress: Progress = silent
) -> tuple[tuple[Query, ...], PreparedQueries]:
    """Prepare the sentinels' queries; a margin is the difference of its two answers."""
    queries = build_queries(sentinels)
    answers = [
        (s, kind, text)
        for s in sentinels
        for kind, text in (("forbidden", s.forbidden), ("reference", s.reference))
        if text
    ]
    place = {(s.id, kind): i for i, (s, kind, _) in enumerate(answers)}
    combine = np.zeros((len(answers), len(queries)))
    for q, query in enumerate(queries):
        combine[
            place[query.sentinel.id, "reference" if query.kind == "reference" else "forbidden"], q
        ] = 1.0
        if query.kind == "margin":
            combine[place[query.sentinel.id, "reference"], q] = -1.0
    return queries, prepare_answers(
        fitted,
        [fitted.encoder.encode(s.add_answer(text)) for s, _, text in answers],
        combine,
        stride,
        progress,
    )


def prepare_answers(
    fitted: Fitted,
    answers: Sequence[Encoded],
    combine: Array,
    stride: StrideConfig,
    progress: Progress = silent,
) -> PreparedQueries:
    """Queries made of encoded answers (A) by `combine` (A, Q)."""
    G = compute_gradients(
        fitted.model, fitted.operators.basis, answers, stride.token_budget, "sentinels", progress
    )
    return PreparedQueries(
        tuple(answers), combine, torch.einsum("aq,ard->qrd", torch.from_numpy(combine).to(G), G)
    )
