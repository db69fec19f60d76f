"""What the rows of a drill do to ordinary conversations: the background of any of its audits."""

from dataclasses import dataclass

import numpy as np
import torch

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.stride.background import compute_centre_and_spread
from poisonwatch.stride.operators import unit_norm
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.streamed import StreamedFit


@dataclass(frozen=True, slots=True)
class BackgroundPushes:
    """What rows do to those that may be the background of an audit, for any choice of its rows.

    `order` (n,) is the drawn order of the drill's rows: an audit's background is the first of its
    rows in it. `pushes` (n, b) is what each row does to each of b rows, and `column` (n,) says
    which of these a row is, -1 for none. All at one of the model's splits.
    """

    order: RowIndices
    column: RowIndices
    pushes: Array

    @classmethod
    def measure(
        cls,
        fitted: StreamedFit,
        ordinary: RowIndices,
        planted: RowIndices,
        background: int,
        seed: int,
        split: int = 0,
    ) -> "BackgroundPushes":
        """Of a fit whose rows `ordinary` are in every audit, and whose rows `planted` may be, with
        backgrounds of at most `background` rows; at one of the model's splits.
        """
        n = len(fitted.ids)
        order = draw_order(fitted.ids, seed)
        # An audit has all ordinary rows, so that those in its sample are among the first of these.
        first = order[np.isin(order, ordinary)][:background]
        probes = np.concatenate([first, planted])
        column = np.full(n, -1)
        column[probes] = np.arange(len(probes))
        return cls(order, column, compute_pushes(fitted, probes, split))

    def compute_background(self, rows: RowIndices, most: int) -> tuple[Array, Array]:
        """Centre and spread (m,) of an audit's rows (m,), over a sample of at most `most` of them;
        a row's push on itself is left out.
        """
        sample = self.order[np.isin(self.order, rows)][:most]
        # A sample of one row has nothing else to push.
        others = np.ones((len(rows), 1), dtype=bool)
        if len(sample) > 1:
            others = rows[:, None] != sample
        pushes = self.pushes[np.ix_(rows, self.column[sample])]
        centre, spread = compute_centre_and_spread(
            torch.from_numpy(pushes), torch.from_numpy(others)
        )
        return (centre / spread).numpy(), spread.numpy()


def compute_pushes(fitted: StreamedFit, probes: RowIndices, split: int = 0) -> Array:
    """(n, b): what each row does to each of the rows `probes` (b,) at one of the model's splits, as
    a `Background` measures it; 0 for a row that moves nothing.
    """
    factors = fitted.factors[split]
    kept = torch.from_numpy(fitted.table.get_gradients(probes, split)).to(fitted.model.device)
    G = unit_norm(kept.view(len(probes), factors.basis.r, fitted.model.width))
    # Of what makes an answer likelier, also where training lowers it.
    signs = torch.from_numpy(fitted.measured.signs[probes]).to(G)
    prepared = factors.preconditioner(G) * signs[:, None, None]
    pushes = fitted.table.measure_effects(prepared, np.ones(len(fitted.ids)), split)
    return pushes.astype(np.float64)
