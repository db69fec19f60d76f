"""The rows of a past audit, as far as it takes to ask what they do to a conversation nobody thought
of then: their gradients or sketches of them, and what these are measured by.

Sketches find the rows behind an answer, and mistake how strongly single rows push it. The first of
them are therefore measured again, where they can be read, with the rows that they are smoothed
over, until what comes first is exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.examples import Example
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride.operators import Basis, Preconditioner, compute_gradients
from poisonwatch.stride.queries import PreparedQueries
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.settings import Settings
from poisonwatch.stride.sketch import RowSketches, Sketch

# Rows whose gradients are widened to float32 at a time.
ROWS_AT_ONCE = 256

# Rows that sketches put first and that are measured again, and at most so many beside them.
SHORTLIST = 200
MOST_MEASURED = 2000

# Example ids to the rows that can be read again.
RowReader = Callable[[Sequence[str]], Mapping[str, Example]]


def read_nothing(ids: Sequence[str]) -> Mapping[str, Example]:
    """A `RowReader` where no row can be read again."""
    del ids
    return {}


@dataclass(frozen=True, slots=True)
class Attribution:
    """The rows' coefficients `w` (n,) for one query, and which of them are `exact` (n,): the others
    are as far as sketches tell.
    """

    w: Float64[Array, " n"]
    exact: Bool[NDArray[np.bool_], " n"]


@dataclass(frozen=True, kw_only=True)
class SavedRows:
    """n rows that were each measured alone: `gradients` (n, r * D), divided by their `spread` (n,)
    already, in bfloat16; where they took too much room `sketches` of them, which the map `sketch`
    made. The other fields as in `MeasuredRows`.
    """

    settings: Settings
    model: FrozenModel
    encoder: ChatEncoder
    ids: tuple[str, ...]
    basis: Basis
    preconditioner: Preconditioner
    gradients: Tensor | None
    centre: Array
    spread: Array
    signs: Array
    features: Features
    sketch: Sketch | None = None
    sketches: RowSketches | None = None

    @cached_property
    def smoother(self) -> csr_array:
        """What smooths effects over each row's nearest (n, n): worked out once, for all queries."""
        return compute_smoother(self.features, find_neighbours(self.features), self.signs)

    def attribute(self, queries: PreparedQueries) -> Float64[Array, "n Q"]:
        """The rows' coefficients (n, Q) for new queries: as an audit would recover them where
        gradients were kept, else as far as sketches tell.
        """
        w: Array = self.smoother @ (self.measure_pushes(queries.G) - self.centre[:, None])
        return w

    def attribute_first(
        self,
        query: PreparedQueries,
        first: int,
        read_rows: RowReader,
        token_budget: int,
        progress: Progress = silent,
    ) -> Attribution:
        """The rows' coefficients for one query, exact for the `first` rows as far as they, and the
        rows most like them, can be read again.

        SHORTLIST backward passes and those that the first rows' neighbours take, where gradients
        were not kept; at most MOST_MEASURED.
        """
        n = len(self.ids)
        if self.gradients is not None:
            return Attribution(self.attribute(query)[:, 0], np.ones(n, dtype=bool))
        y = self.measure_pushes(query.G)[:, 0]
        probe = precondition_queries(self.preconditioner, query.G)[0]
        known, asked = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        w = self.smoother @ (y - self.centre)
        wanted = _list_highest(w, SHORTLIST)
        while len(wanted) and asked.sum() < MOST_MEASURED:
            asked[wanted] = True
            found, G = self._read_gradients(wanted, read_rows, token_budget, progress)
            pushes = (G.flatten(1) @ probe.flatten()).double().cpu().numpy()
            y[found], known[found] = pushes / self.spread[found], True
            w = self.smoother @ (y - self.centre)
            # Smoothed, a row is exact once its neighbours are: rows that sketches put first by
            # mistake fall behind here, and others take their place.
            near = np.unique(self.smoother[_list_highest(w, first)].indices).astype(np.int64)
            wanted = near[~asked[near]]
        unknown = abs(self.smoother) @ (~known).astype(np.float32)
        return Attribution(w, unknown == 0)

    def measure_pushes(self, G: Float[Tensor, "Q r D"]) -> Float64[Array, "n Q"]:
        """Pushes (n, Q) on queries with gradients G (Q, r, D), in background standard deviations;
        as far as sketches tell where gradients were not kept.
        """
        if self.gradients is None:
            if self.sketch is None or self.sketches is None:
                raise ValueError("neither gradients nor sketches were kept")
            return self.sketches.measure(self.sketch.project_queries(G))
        probes = precondition_queries(self.preconditioner, G).flatten(1)
        blocks = []
        for start in range(0, len(self.gradients), ROWS_AT_ONCE):
            some = self.gradients[start : start + ROWS_AT_ONCE].to(probes)
            blocks.append((some @ probes.T).cpu().double().numpy())
        return np.concatenate(blocks)

    def get_scaled_gradients(
        self,
        rows: Int64[RowIndices, " m"],
        read_rows: RowReader,
        token_budget: int,
        progress: Progress = silent,
    ) -> Float[Tensor, "k r D"]:
        """c_i G_i (k, r, D) of the rows (m,): as they were kept, or made again of those rows that
        can be read again.
        """
        if self.gradients is not None:
            some = self.gradients[rows].to(self.preconditioner.A)
            return some.view(len(rows), self.basis.r, self.model.width)
        found, G = self._read_gradients(rows, read_rows, token_budget, progress)
        return G / torch.from_numpy(self.spread[found]).to(G)[:, None, None]

    def _read_gradients(
        self,
        rows: Int64[RowIndices, " m"],
        read_rows: RowReader,
        token_budget: int,
        progress: Progress,
    ) -> tuple[RowIndices, Tensor]:
        """Those of the rows (m,) that can be read again, and their gradients."""
        examples = read_rows([self.ids[i] for i in rows.tolist()])
        found = [i for i in rows.tolist() if self.ids[i] in examples]
        encoded = [self.encoder.encode_example(examples[self.ids[i]]) for i in found]
        G = compute_gradients(self.model, self.basis, encoded, token_budget, "shortlist", progress)
        return np.array(found, dtype=np.int64), G


def _list_highest(w: Float64[Array, " n"], count: int) -> RowIndices:
    """The `count` rows of largest w, largest first; of equals the first."""
    rows: RowIndices = np.argsort(-w, kind="stable")[:count].astype(np.int64)
    return rows
