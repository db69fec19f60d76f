"""What a row does to ordinary conversations: the background that its push on a sentinel is measured
against.

A row whose gradient moves everything is not suspicious for moving a sentinel, too. A sample of the
rows serves as ordinary conversations:

    push of row i on conversation b:   p_ib = <P G_b / ||G_b||, G_i>
    P G = (A + damping)^-1 G (S + damping)^-1
    centre_i = mean_b p_ib ,  spread_i = std_b p_ib ,    without the row's push on itself

A conversation is pushed where its answer becomes likelier, also where training itself would lower
that answer: G_b is then taken with the other sign.

A row enters its subsets with c_i = 1 / spread_i: its coefficient then counts spreads. Both numbers
come with the row's gradient, so that they cost no pass of their own and are exact whatever the
number of subsets.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from poisonwatch.arrays import Array
from poisonwatch.stride.operators import Preconditioner, unit_norm

# Of the largest push: below is rounding.
LEAST_SPREAD = 1e-5


@dataclass(frozen=True, slots=True)
class Background:
    """`probes` (b, r, D): the preconditioned unit-norm gradients of b ordinary conversations."""

    probes: Tensor

    @classmethod
    def from_gradients(
        cls, G: Float[Tensor, "b r D"], preconditioner: Preconditioner, signs: Float64[Array, " b"]
    ) -> "Background":
        """From the gradients G (b, r, D) of the sampled rows, -1 among their `signs` (b,) where
        training lowers a row's answer.
        """
        raised = G * torch.from_numpy(signs).to(G)[:, None, None]
        # Laid out row by row: every batch of rows is multiplied with them.
        return cls(preconditioner(unit_norm(raised)).contiguous())

    def measure(
        self, G: Float[Tensor, "m r D"], own: Int64[Tensor, " m"] | None = None
    ) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " m"]]:
        """Centre and spread (m,) of the pushes of rows with gradients G (m, r, D).

        `own` (m,) is the place of a row among the probes, whose push is left out, and -1 for a row
        that is none of them. A row that moves nothing has spread infinity: c_i = 0.
        """
        pushes = (G.flatten(1) @ self.probes.flatten(1).T).double()
        others = torch.ones_like(pushes, dtype=torch.bool)
        # With a single probe a row may have nothing but itself to move.
        if own is not None and len(self.probes) > 1:
            others[(own >= 0).nonzero()[:, 0], own[own >= 0]] = False
        return compute_centre_and_spread(pushes, others)


def compute_centre_and_spread(
    pushes: Float64[Tensor, "m b"], others: Bool[Tensor, "m b"]
) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " m"]]:
    """Mean and standard deviation (m,) of the pushes (m, b) on the conversations that are `others`
    (m, b) to a row; infinite for 0.
    """
    count = others.sum(dim=1)
    centre = pushes.where(others, 0.0).sum(dim=1) / count
    deviation = (pushes - centre[:, None]).where(others, 0.0)
    spread = (deviation.pow(2).sum(dim=1) / count).sqrt()
    largest = pushes.where(others, 0.0).abs().amax(dim=1)
    # All probes alike, or a single one: nothing varies, and the push itself is the only scale.
    spread = torch.where(spread > LEAST_SPREAD * largest, spread, largest)
    return centre, torch.where(spread > 0, spread, torch.inf)
