"""Rows that cannot be measured, and why: such a row costs itself, not the audit.

A row has no gradient where none of its answer's tokens is left to learn, and one that is not made
of numbers where the model overflows on it: in float16 that takes one large activation. Such rows
are found as they are passed over, before they enter any sum, and the fit is of the others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import RowIndices
from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import Encoded
from poisonwatch.model.fault import Fault, FaultyRow, describe_fault
from poisonwatch.model.frozen import StateGradients
from poisonwatch.text.words import plural

# A model that fails on a larger share of the rows is at fault itself.
MOST_FAULTY = 0.5

# A `Fault` for each of some rows.
Faults = NDArray[np.uint8]


def find_unanswered(encoded: Sequence[Encoded]) -> Faults:
    """The faults (m,) that show before a pass: NO_ANSWER where a loss is not defined, in either
    conversation of a preference row.
    """
    return np.array([Fault.NO_ANSWER * (not has_loss(item)) for item in encoded], dtype=np.uint8)


def has_loss(item: Encoded) -> bool:
    """Whether an answer token is predicted, in both conversations of a preference row."""
    # The first token is predicted by none.
    if not item.answer[1:].any():
        return False
    return item.against is None or has_loss(item.against)


def leave_out_faulty(seen: StateGradients) -> tuple[StateGradients, Faults]:
    """What a backward pass gave without what is not finite, and the faults (m,) of its rows: a row
    that has one, at any split, is all 0, and none of its tokens counts.
    """
    faults = _find_faults(seen)
    for above in seen.further:
        faults = torch.where(faults > 0, faults, _find_faults(above))
    rejected = seen.rejected.to(faults.device)
    m = len(faults) - len(rejected)
    # A preference row is as good as the worse of its two conversations.
    of_rows = faults[:m]
    of_rows[rejected] = torch.maximum(of_rows[rejected], faults[m:])
    found = cast(Faults, of_rows.cpu().numpy())
    if not found.any():
        return seen, found
    kept = torch.cat([of_rows, of_rows[rejected]]) == 0
    further = tuple(_clear(above, kept) for above in seen.further)
    return replace(_clear(seen, kept), further=further), found


def _clear(seen: StateGradients, kept: Tensor) -> StateGradients:
    """All but the conversations that are `kept` (b,) set to 0."""
    return replace(
        seen,
        z=seen.z.where(kept[:, None, None], 0.0),
        g=seen.g.where(kept[:, None, None], 0.0),
        mask=seen.mask & kept[:, None],
        loss=seen.loss.where(kept, 0.0),
    )


def _find_faults(seen: StateGradients) -> Tensor:
    """The fault of each conversation (b,), on the device: the first in the order of the pass."""
    faults = torch.zeros(len(seen.loss), dtype=torch.uint8, device=seen.loss.device)
    faults.masked_fill_(~has_finite_power(seen.g), int(Fault.GRADIENT))
    faults.masked_fill_(~seen.loss.isfinite(), int(Fault.LOSS))
    return faults.masked_fill_(~has_finite_power(seen.z), int(Fault.STATES))


def has_finite_power(values: Tensor) -> Tensor:
    """Of which conversations (b,) the squares of all values (b, T, D) have a finite sum."""
    # Not each value alone: what enters second moments must have a finite square. A norm squares
    # without a copy, in the precision of the values.
    norms: Tensor = torch.linalg.vector_norm(values, dim=(1, 2))
    return norms.isfinite()


def has_finite_rows(values: Tensor, rejected: Tensor) -> Tensor:
    """The same, but that both conversations (b,) of a preference row have it, or neither."""
    finite = has_finite_power(values)
    of_rows = finite[: len(finite) - len(rejected)]
    of_rows[rejected] &= finite[len(of_rows) :]
    return torch.cat([of_rows, of_rows[rejected]])


def list_faulty(faults: Faults) -> tuple[FaultyRow, ...]:
    """The rows that have a fault, by the faults (n,) of all."""
    rows = np.flatnonzero(faults)
    return tuple(FaultyRow(int(row), Fault(int(faults[row]))) for row in rows)


def list_measured(faults: Faults) -> RowIndices:
    """The rows (m,) that have none, by the faults (n,) of all."""
    return np.flatnonzero(faults == Fault.NONE)


def require_measurable(faults: Faults, precision: str) -> None:
    """Raises ModelError where most of n rows have a fault: it is the model then, or a setting."""
    count = int(np.count_nonzero(faults))
    if count <= MOST_FAULTY * len(faults):
        return
    commonest = Fault(int(np.bincount(faults[faults > 0]).argmax()))
    raise ModelError(
        f"{count:,} of {plural(len(faults), 'row')} cannot be measured; the reason, most often: "
        f"{describe_fault(commonest, precision)}"
    )
