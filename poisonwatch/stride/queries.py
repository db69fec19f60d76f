"""Sentinels as queries: answers encoded, gradients taken."""

from collections.abc import Iterator, Sequence
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
from poisonwatch.model.encoding import Batch, ChatEncoder, Encoded
from poisonwatch.model.fault import Fault, describe_fault
from poisonwatch.model.frozen import FrozenModel, StateGradients
from poisonwatch.model.products import describe_products
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.checks import make_fault_error, require_loss
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Query, build_queries
from poisonwatch.stride.operators import Basis, compute_all_gradients
from poisonwatch.stride.similarity import ANSWER_VIEW, compute_views


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
    """A `Space`, before any fit is made; with the bases at `further` splits of the model, where
    queries are to be asked there, too.
    """

    model: FrozenModel
    encoder: ChatEncoder
    basis: Basis
    further: tuple[Basis, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedQueries:
    """Queries ready to be measured: `answers` (A) conversations, `combine` (A, Q) how queries are
    made of them, gradients `G` (Q, r, D), and the same at `further` splits; `states` (A, k) are the
    mean coordinates of the answers' own states at the last.
    """

    answers: tuple[Encoded, ...]
    combine: Float64[Array, "A Q"]
    G: Float[Tensor, "Q r D"]
    states: Float[Tensor, "A k"]
    further: tuple[Float[Tensor, "Q r D"], ...] = ()


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
    for sentinel, kind, text in list_answers(sentinels):
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
    gradients, states = _differentiate(space, encoded, stride, progress)
    for a in np.flatnonzero(~_find_finite(gradients)):
        # What a copy holds of the rows may be what the model overflows on.
        if not owners[a].is_copy:
            precision = describe_products(space.model.model)
            raise make_fault_error(owners[a], Fault.GRADIENT, precision)
        combine[a] = 0.0
        for G in gradients:
            G[a] = 0.0
    return queries, _combine(encoded, combine, gradients, states)


def list_answers(sentinels: Sequence[Sentinel]) -> Iterator[tuple[Sentinel, str, str]]:
    """The answers that sentinels have, in the order in which they are run: the sentinel, forbidden
    or reference, and the text.
    """
    for sentinel in sentinels:
        for kind, text in (("forbidden", sentinel.forbidden), ("reference", sentinel.reference)):
            if text:
                yield sentinel, kind, text


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
    gradients, states = _differentiate(space, answers, stride, progress)
    if not _find_finite(gradients).all():
        reason = describe_fault(Fault.GRADIENT, describe_products(space.model.model))
        raise ModelError(f"an answer cannot be measured: {reason}")
    return _combine(answers, combine, gradients, states)


def _differentiate(
    space: Space, answers: Sequence[Encoded], stride: StrideConfig, progress: Progress
) -> tuple[tuple[Float[Tensor, "A r D"], ...], Float[Tensor, "A k"]]:
    """The answers' gradients at every split that the space has a basis for, and the coordinates of
    their states at the last.
    """
    bases = [space.basis]
    if isinstance(space, QuerySpace):
        bases += space.further
    states = torch.zeros(len(answers), bases[-1].r - 1)

    def look(batch: Batch, seen: StateGradients) -> None:
        views = compute_views(bases[-1], seen.splits[len(bases) - 1].z, batch)
        states[batch.rows] = torch.from_numpy(views[:, ANSWER_VIEW])

    gradients = compute_all_gradients(
        space.model, bases, answers, stride.token_budget, "sentinels", progress, look
    )
    return gradients, states


def _combine(
    answers: Sequence[Encoded],
    combine: Float64[Array, "A Q"],
    gradients: Sequence[Float[Tensor, "A r D"]],
    states: Float[Tensor, "A k"],
) -> PreparedQueries:
    # Gradients add up as losses do: a margin needs no pass of its own.
    weights = torch.from_numpy(combine)
    first, *further = (torch.einsum("aq,ard->qrd", weights.to(G), G) for G in gradients)
    return PreparedQueries(tuple(answers), combine, first, states, tuple(further))


def _find_finite(gradients: Sequence[Float[Tensor, "m r D"]]) -> Bool[NDArray[np.bool_], " m"]:
    """Of which answers all gradients are finite."""
    finite: NDArray[np.bool_] = np.all([has_finite_values(G) for G in gradients], axis=0)
    return finite


def has_finite_values(G: Float[Tensor, "m r D"]) -> Bool[NDArray[np.bool_], " m"]:
    """Which of the gradients (m, r, D) are finite."""
    finite: NDArray[np.bool_] = G.isfinite().flatten(1).all(dim=1).cpu().numpy()
    return finite
