"""What is derived for a fit, and what can be done with its outcome."""

import numpy as np
import torch
from attributions import ROWS, STRIDE, fit_operators

from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.operators import compute_gradients


def test_rows_measured_alone_are_exact_operators_of_their_own(tiny_pretrained: Pretrained) -> None:
    """with_row_gradients(i): the operator that a fit with K = n gives row i, at the same eta."""
    stride = STRIDE.model_copy(update={"K": 20})
    some, every = fit(tiny_pretrained, ROWS, stride), fit_operators(tiny_pretrained, ROWS)
    rows = np.array([3, 17])
    G = compute_gradients(
        some.model, some.operators.basis, [some.encoded[i] for i in rows], 400, "rows", silent
    )
    extended = some.with_row_gradients(rows, G)
    assert extended.M.shape == (22, 40)
    assert set(np.flatnonzero(extended.measured_alone)) == {3, 17} | set(
        np.flatnonzero(some.measured_alone)
    )
    subset = every.M.tocsc().indices[rows]
    ours, theirs = (
        extended.operators.a[20:] / some.operators.eta,
        every.operators.a[subset] / every.operators.eta,
    )
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-3 * float(theirs.abs().max()))


def test_rows_that_were_singled_out_can_be_put_back(tiny_pretrained: Pretrained) -> None:
    """A fit with what another's suspects were found to do is that other one, to the bit; with
    nothing, it is itself.
    """
    some = fit(tiny_pretrained, ROWS, STRIDE.model_copy(update={"K": 20}))
    extended = some
    for rows in (np.array([17, 3]), np.array([5])):
        encoded = [some.encoded[i] for i in rows]
        extended = extended.with_row_gradients(
            rows, compute_gradients(some.model, some.operators.basis, encoded, 400, "rows", silent)
        )
    again = some.with_single_rows(extended.single_rows)
    assert extended.single_rows.rows.tolist() == [17, 3, 5]
    assert torch.equal(again.operators.a, extended.operators.a)
    assert (again.M != extended.M).nnz == 0
    assert some.with_single_rows(some.single_rows) is some
