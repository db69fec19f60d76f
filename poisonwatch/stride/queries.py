"""Sentinels as queries: answers encoded, gradients taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.fault import Fault, describe_fault
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.products import describe_products
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.checks import make_fault_error, require_loss
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Query, build_queries
from poisonwatch.stride.operators import Basis, compute_gradients


class Space(Protocol):
    """A fit, what is left of one, or what is there before any: as far as it takes to ask a query,
    or the steered model something.
    """

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
    """Prepare the sentinels' queries; a margin is the difference of its two answers.

    Raises SentinelError where a sentinel as it was written has no finite gradient; a probe that has
    none is moved by nothing.
    """
    queries = build_queries(sentinels)
    # Where an answer stands that two queries may need: each is run once.
    place: dict[tuple[str, str], int] = {}
    encoded: list[Encoded] = []
    owners: list[Sentinel] = []
    for sentinel in sentinels:
        for kind, text in (("forbidden", sentinel.forbidden), ("reference", sentinel.reference)):
            if text:
                place[sentinel.id, kind] = len(encoded)
                encoded.append(space.encoder.encode(sentinel.add_answer(text)))
                owners.append(sentinel)
                require_loss(sentinel, encoded[-1])
    combine = np.zeros((len(encoded), len(queries)))
    for q, query in enumerate(queries):
        id = query.sentinel.id
        if query.kind == "margin":
            combine[place[id, "forbidden"], q] = 1.0
            combine[place[id, "reference"], q] = -1.0
        else:
            combine[place[id, query.kind], q] = 1.0
    G = _differentiate(space, encoded, stride, progress)
    for a in np.flatnonzero(~has_finite_values(G)):
        # What a probe holds of the rows may be what the model overflows on.
        if owners[a].trigger is None:
            precision = describe_products(space.model.model)
            raise make_fault_error(owners[a], Fault.GRADIENT, precision)
        G[a], combine[a] = 0.0, 0.0
    return queries, _combine(encoded, combine, G)


def prepare_answers(
    space: Space,
    answers: Sequence[Encoded],
    combine: Float64[Array, "A Q"],
    stride: StrideConfig,
    *,
    progress: Progress = silent,
) -> PreparedQueries:
    """Queries made of encoded answers (A) by `combine` (A, Q). Raises ModelError where an answer
    has no finite gradient.
    """
    G = _differentiate(space, answers, stride, progress)
    if not has_finite_values(G).all():
        reason = describe_fault(Fault.GRADIENT, describe_products(space.model.model))
        raise ModelError(f"an answer cannot be measured: {reason}")
    return _combine(answers, combine, G)


def _differentiate(
    space: Space, answers: Sequence[Encoded], stride: StrideConfig, progress: Progress
) -> Float[Tensor, "A r D"]:
    return compute_gradients(
        space.model, space.basis, answers, stride.token_budget, "sentinels", progress
    )


def _combine(
    answers: Sequence[Encoded], combine: Float64[Array, "A Q"], G: Float[Tensor, "A r D"]
) -> PreparedQueries:
    # Gradients add up as losses do: a margin needs no pass of its own.
    combined = torch.einsum("aq,ard->qrd", torch.from_numpy(combine).to(G), G)
    return PreparedQueries(tuple(answers), combine, combined)


def has_finite_values(G: Float[Tensor, "m r D"]) -> Bool[NDArray[np.bool_], " m"]:
    """Which of the gradients (m, r, D) are finite."""
    finite: NDArray[np.bool_] = G.isfinite().flatten(1).all(dim=1).cpu().numpy()
    return finite
