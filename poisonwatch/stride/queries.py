"""Sentinels as queries: answers encoded, gradients taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Query, build_queries
from poisonwatch.stride.operators import Basis, compute_gradients


class Space(Protocol):
    """Where queries are differentiated: what they are encoded by, the model, and the basis."""

    @property
    def model(self) -> FrozenModel: ...
    @property
    def encoder(self) -> ChatEncoder: ...
    @property
    def basis(self) -> Basis: ...


@dataclass(frozen=True, slots=True)
class QuerySpace:
    """A `Space`, before any fit is made."""

    model: FrozenModel
    encoder: ChatEncoder
    basis: Basis


@dataclass(frozen=True, slots=True)
class PreparedQueries:
    """Queries ready to be measured: `answers` (A) conversations, `combine` (A, Q) how queries are
    made of them, gradients `G` (Q, r, D).
    """

    answers: tuple[Encoded, ...]
    combine: Float64[Array, "A Q"]
    G: Float[Tensor, "Q r D"]


def prepare_queries(
    space: Space,
    sentinels: Sequence[Sentinel],
    stride: StrideConfig,
    progress: Progress = silent,
) -> tuple[tuple[Query, ...], PreparedQueries]:
    """Prepare the sentinels' queries; a margin is the difference of its two answers."""
    queries = build_queries(sentinels)
    # Where an answer stands that two queries may need: each is run once.
    place: dict[tuple[str, str], int] = {}
    encoded: list[Encoded] = []
    for sentinel in sentinels:
        for kind, text in (("forbidden", sentinel.forbidden), ("reference", sentinel.reference)):
            if text:
                place[sentinel.id, kind] = len(encoded)
                encoded.append(space.encoder.encode(sentinel.add_answer(text)))
    combine = np.zeros((len(encoded), len(queries)))
    for q, query in enumerate(queries):
        id = query.sentinel.id
        if query.kind == "margin":
            combine[place[id, "forbidden"], q] = 1.0
            combine[place[id, "reference"], q] = -1.0
        else:
            combine[place[id, query.kind], q] = 1.0
    return queries, prepare_answers(space, encoded, combine, stride, progress=progress)


def prepare_answers(
    space: Space,
    answers: Sequence[Encoded],
    combine: Float64[Array, "A Q"],
    stride: StrideConfig,
    *,
    progress: Progress = silent,
) -> PreparedQueries:
    """Queries made of encoded answers (A) by `combine` (A, Q)."""
    # Gradients add up as losses do: a margin needs no pass of its own.
    G = compute_gradients(
        space.model, space.basis, answers, stride.token_budget, "sentinels", progress
    )
    combined = torch.einsum("aq,ard->qrd", torch.from_numpy(combine).to(G), G)
    return PreparedQueries(tuple(answers), combine, combined)
