"""From measurements to coefficients: rounds, and what each recovery makes of known rows."""

import numpy as np
from attributions import (
    DESIGNS,
    ROWS,
    SENTINELS,
    STRIDE,
    audit,
)

from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.fitted import TrainedFit
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.operators import compute_gradients
from poisonwatch.stride.queries import prepare_queries
from poisonwatch.stride.recover import estimate_coefficients, recover_influence


def test_adaptive_rounds_end_when_no_new_suspect_turns_up(tiny_pretrained: Pretrained) -> None:
    """After enough rounds every suspect was measured alone; with none, recovery alone is the
    result.
    """
    stride = STRIDE.model_copy(update={"K": 20, "shortlist": 5, "rounds": 20})
    influence = audit(tiny_pretrained, ROWS, stride)
    assert 5 <= influence.measured_alone < 40
    fitted = fit(tiny_pretrained, ROWS, stride)
    _, extended = recover_influence(fitted, SENTINELS, stride)
    assert extended.measured_alone[influence.suspects].all()
    none = audit(tiny_pretrained, ROWS, stride.model_copy(update={"rounds": 0}))
    np.testing.assert_array_equal(none.w, none.first_pass)
    np.testing.assert_array_equal(none.first_pass, influence.first_pass)


def test_measuring_every_row_alone_gives_what_one_subset_a_row_gives(
    tiny_pretrained: Pretrained,
) -> None:
    """shortlist = n: recovery from shared subsets and single rows together = recovery with K = n."""
    fewer = audit(
        tiny_pretrained, ROWS, STRIDE.model_copy(update={"K": 20, "shortlist": 40, "rounds": 1})
    )
    every = audit(tiny_pretrained, ROWS, STRIDE)
    for q in range(every.w.shape[1]):
        assert np.corrcoef(fewer.w[:, q], every.w[:, q])[0, 1] > 0.95


def test_lasso_reports_what_it_makes_of_rows_that_do_not_exist(tiny_pretrained: Pretrained) -> None:
    """Phantom coefficients exist where subsets are shared, and only with the Lasso; the gap
    certifies the solution.
    """
    lasso = audit(tiny_pretrained, ROWS, STRIDE.model_copy(update=DESIGNS["lasso"] | {"rounds": 0}))
    assert lasso.decoy_quantile is not None
    assert np.isfinite(lasso.decoy_quantile).all()
    assert lasso.certificate <= 1e-6
    assert (
        audit(tiny_pretrained, ROWS, STRIDE.model_copy(update={"recovery": "lasso"})).decoy_quantile
        is None
    )


def test_trained_operators_are_recovered_without_rounds(tiny_pretrained: Pretrained) -> None:
    """fit: sgd gives a learning curve, and coefficients from recovery alone."""
    stride = STRIDE.model_copy(update={"fit": "sgd", "K": 6, "design": "random", "rounds": 3})
    fitted = fit(tiny_pretrained, ROWS[:16], stride)
    influence, after = recover_influence(fitted, SENTINELS, stride)
    assert isinstance(fitted, TrainedFit)
    assert len(fitted.curve.step) == stride.training.epochs * 2
    assert after is fitted
    np.testing.assert_array_equal(influence.w, influence.first_pass)
    assert np.isfinite(influence.w).all()


def test_lasso_takes_rows_measured_alone_at_their_word(tiny_pretrained: Pretrained) -> None:
    """w_i = y_i - centre_i, without shrinkage, for every row with a subset of its own beside the
    shared ones.
    """
    stride = STRIDE.model_copy(update=DESIGNS["lasso"])
    fitted = fit(tiny_pretrained, ROWS, stride)
    rows = np.array([3, 17, 31])
    G = compute_gradients(
        fitted.model, fitted.operators.basis, [fitted.encoded[i] for i in rows], 400, "rows", silent
    )
    extended = fitted.with_row_gradients(rows, G)
    _, asked = prepare_queries(extended, SENTINELS, stride)
    y = measure(extended, extended.operators, asked, stride)
    np.testing.assert_allclose(
        estimate_coefficients(extended, y, stride).w[rows], y[20:] - fitted.centre[rows, None]
    )


def test_estimate_takes_out_what_rows_do_to_ordinary_conversations(
    tiny_pretrained: Pretrained,
) -> None:
    """y = M centre gives w = 0."""
    fitted = fit(tiny_pretrained, ROWS, STRIDE.model_copy(update={"K": 20}))
    found = estimate_coefficients(fitted, (fitted.M @ fitted.centre)[:, None], STRIDE)
    np.testing.assert_allclose(found.w, 0, atol=1e-9)
