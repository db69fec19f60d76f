"""The rows of a past audit, as far as it takes to ask what they do to a conversation nobody thought
of then: their gradients, and what these are measured by.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from poisonwatch.arrays import Array, Features
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride.operators import Basis, Preconditioner
from poisonwatch.stride.queries import PreparedQueries
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.settings import Settings

# Rows whose gradients are widened to float32 at a time.
ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRows:
    """n rows that were each measured alone: `gradients` (n, r * D), divided by their `spread` (n,)
    already, in bfloat16; the other fields as in `MeasuredRows`.
    """

    settings: Settings
    model: FrozenModel
    encoder: ChatEncoder
    ids: tuple[str, ...]
    basis: Basis
    preconditioner: Preconditioner
    gradients: Tensor
    centre: Array
    spread: Array
    signs: Array
    features: Features

    def attribute(self, queries: PreparedQueries) -> Float64[Array, "n Q"]:
        """The rows' coefficients (n, Q) for new queries, as an audit would recover them."""
        probes = precondition_queries(self.preconditioner, queries.G).flatten(1)
        blocks = []
        for start in range(0, len(self.gradients), ROWS_AT_ONCE):
            some = self.gradients[start : start + ROWS_AT_ONCE].to(probes)
            blocks.append((some @ probes.T).cpu().double().numpy())
        y = np.concatenate(blocks) - self.centre[:, None]
        smoother = compute_smoother(self.features, find_neighbours(self.features), self.signs)
        w: Array = smoother @ y
        return w
