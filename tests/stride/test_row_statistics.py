"""One pass over some rows tells what passes of their own would."""

import numpy as np
import pytest
import torch

from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import silent
from poisonwatch.stride.operators import Moments, compute_gradients, fit_basis
from poisonwatch.stride.row_statistics import measure_row_statistics
from poisonwatch.stride.similarity import survey_views

R, BUDGET = 6, 400


@pytest.mark.parametrize("budget", [1, BUDGET])
def test_moments_gradients_and_views_are_those_of_passes_of_their_own(
    model: FrozenModel, encoded: list[Encoded], budget: int
) -> None:
    """A, S, power and tokens; G (m, r, D); views (m, VIEWS, r - 1), whatever the batches."""
    basis = fit_basis(model, encoded, R, BUDGET)
    (found,) = measure_row_statistics(model, encoded, [basis], budget, label="sample").splits
    G = compute_gradients(model, basis, encoded, BUDGET, "rows", silent)
    torch.testing.assert_close(found.G, G, rtol=1e-3, atol=1e-4 * float(G.abs().max()))
    views = survey_views(model, encoded, basis, BUDGET)
    np.testing.assert_allclose(found.views, views, rtol=1e-3, atol=1e-4)
    moments = Moments.zeros(R, model.width)
    for batch in make_batches(encoded, BUDGET):
        moments += Moments.of_batch(basis, model.compute_state_gradients(batch))
    assert found.moments.tokens == moments.tokens
    assert found.moments.power == pytest.approx(moments.power, rel=1e-4)
    for one, other in ((found.moments.A, moments.A), (found.moments.S, moments.S)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
