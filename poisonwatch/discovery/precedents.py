"""What is new: whether earlier audits had rows that push the way a group does.

A group's direction is the mean of its rows' whitened gradients, each of length one. It is asked of
an earlier audit's records as a conversation is that somebody wants explained: how hard each row
pushes it, in background standard deviations. Earlier rows count as alike from half of what the
group's own rows do (the median of them, each measured on the mean of the others), and no earlier
than nearly all trusted rows of this audit stay below, where that is not beyond the group itself.
What trusted rows reach all the same is expected of earlier ones. Audits of another model or layer
cannot be compared with.

Bases are fitted to trusted rows, and differ where those do: a direction is carried over by what the
two have in common.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.detection.random_groups import GROUP_ROWS
from poisonwatch.discovery.described import EarlierRows, Precedents
from poisonwatch.stride.operators import Basis, Preconditioner
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.saved_rows import RowReader, SavedRows
from poisonwatch.stride.streamed import StreamedFit

LEAST, MOST = 0.5, 0.9  # of the median of the group's own pushes
USUAL = 99.5  # percentile of the trusted rows' pushes
LEAST_ALIKE = 2  # rows of an earlier audit, beyond what trusted rows make expect


class PushingRows(Protocol):
    """What is left of an audit's rows, as far as it takes to ask how hard each pushes."""

    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def basis(self) -> Basis: ...
    def measure_pushes(self, G: Tensor) -> Array: ...


@dataclass(frozen=True, slots=True)
class EarlierAudit:
    """An earlier audit's records, with the `sources` of its new rows by example id."""

    number: int
    audit_id: str
    saved: PushingRows
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GroupDirection:
    """Where a group pushes: `G` (1, r, D) over a basis; the `push` from which a row is alike, and
    the `share` of this audit's trusted rows that reach it.
    """

    G: Tensor
    basis: Basis
    push: float
    share: float


def find_direction(
    fitted: SavedRows | StreamedFit,
    rows: RowIndices,
    trusted: NDArray[np.bool_],
    read_rows: RowReader,
    token_budget: int = 2048,
) -> GroupDirection | None:
    """The direction of a group's `rows` (m,), by places in the fit, most typical first; `trusted`
    (n,) says which rows are. None where fewer than two of the rows can be measured.
    """
    scaled = _get_scaled_gradients(fitted, rows[:GROUP_ROWS], read_rows, token_budget)
    if len(scaled) < 2:
        return None
    unit = _scale_to_unit(scaled, fitted.preconditioner)
    own = _push_each_other(unit, scaled, fitted.preconditioner)
    G = unit.mean(dim=0, keepdim=True)
    median = float(np.median(own))
    push, share = LEAST * median, 0.0
    if trusted.any():
        usual = measure_pushes(fitted, G)[trusted]
        push = min(max(push, float(np.percentile(usual, USUAL))), MOST * median)
        share = float((usual >= push).mean())
    return GroupDirection(G, fitted.basis, push, share)


def find_precedents(
    directions: Sequence[GroupDirection | None],
    earlier: Iterable[EarlierAudit | None],
    own_ids: Set[str],
) -> tuple[list[Precedents], int]:
    """What `earlier` audits, latest first, have of each direction, and how many of them cannot be
    compared with (None); rows that are among this audit's own (`own_ids`) are not counted: they
    were audited again.
    """
    alike: list[list[EarlierRows]] = [[] for _ in directions]
    audits: list[int] = []
    total = left_out = 0
    # One at a time: each holds the gradients of all its rows.
    for audit in earlier:
        if audit is None:
            left_out += 1
            continue
        saved = audit.saved
        audits.append(audit.number)
        new = [
            place for place, id in enumerate(saved.ids) if id in audit.sources and id not in own_ids
        ]
        total += len(new)
        for found, direction in zip(alike, directions, strict=True):
            if direction is None or not new:
                continue
            G = carry_over(direction.G, direction.basis, saved.basis)
            reached = saved.measure_pushes(G)[new, 0] >= direction.push
            expected = direction.share * len(new)
            if reached.sum() >= LEAST_ALIKE + expected + 2 * expected**0.5:
                names = [audit.sources[saved.ids[new[k]]] for k in np.flatnonzero(reached)]
                counts = dict(Counter(names).most_common())
                found.append(EarlierRows(audit.number, audit.audit_id, len(names), counts))
    last = audits[0] if audits else None
    found_all = [Precedents(len(audits), total, last, tuple(found)) for found in alike]
    return found_all, left_out


def carry_over(G: Float[Tensor, "Q r D"], basis: Basis, other: Basis) -> Float[Tensor, "Q s D"]:
    """Gradients (Q, r, D) over one basis as those over another, as far as it holds the same
    directions.
    """
    if basis.directions is other.directions:
        return G
    shared = other.directions.T @ basis.directions.to(other.directions)
    # The constant, last, is the same in all.
    carried = torch.einsum("sr,qrd->qsd", shared, G[:, :-1].to(shared))
    return torch.cat([carried, G[:, -1:].to(shared)], dim=1)


def measure_pushes(fitted: SavedRows | StreamedFit, G: Float[Tensor, "1 r D"]) -> Array:
    """How hard each row pushes a direction (n,), in background standard deviations."""
    if isinstance(fitted, SavedRows):
        pushes: Array = fitted.measure_pushes(G)[:, 0]
        return pushes
    if fitted.table.keeps_gradients:
        probes = precondition_queries(fitted.preconditioner, G)
        return fitted.table.measure_effects(probes, fitted.measured.spread)[:, 0].astype(float)
    if fitted.sketch is None:
        raise ValueError("neither gradients nor sketches were kept")
    projected = fitted.sketch.project_queries(G)
    return fitted.table.measure_sketched_effects(projected)[:, 0].astype(float)


def _get_scaled_gradients(
    fitted: SavedRows | StreamedFit, rows: RowIndices, read_rows: RowReader, token_budget: int
) -> Float[Tensor, "m r D"]:
    """c_i G_i of the rows (m,), of those that can be had."""
    if isinstance(fitted, SavedRows):
        return fitted.get_scaled_gradients(rows, read_rows, token_budget)
    G = fitted.get_gradients(rows)
    return G / torch.from_numpy(fitted.measured.spread[rows]).to(G)[:, None, None]


def _scale_to_unit(
    G: Float[Tensor, "m r D"], preconditioner: Preconditioner
) -> Float[Tensor, "m r D"]:
    """The gradients, each over its whitened length; of one without length, 0."""
    lengths = (preconditioner(G) * G).sum(dim=(1, 2), keepdim=True).clamp_min(0).sqrt()
    return torch.where(lengths > 0, G / lengths.clamp_min(1e-30), 0.0)


def _push_each_other(
    unit: Float[Tensor, "m r D"], scaled: Float[Tensor, "m r D"], preconditioner: Preconditioner
) -> Array:
    """How hard each row pushes the mean direction of the others (m,), as queries are measured."""
    total, pushes = unit.sum(dim=0, keepdim=True), []
    for own, gradient in zip(torch.split(unit, 1), torch.split(scaled, 1), strict=True):
        probe = precondition_queries(preconditioner, total - own)
        pushes.append(float((probe * gradient).sum()))
    return np.array(pushes)
