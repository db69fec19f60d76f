"""From rows to coefficients, on a tiny random model."""

from dataclasses import replace

import numpy as np
import pytest
from attributions import (
    DESIGNS,
    FORBIDDEN,
    ROWS,
    SENTINELS,
    STRIDE,
    audit,
    close,
    example,
    fit_operators,
)

from poisonwatch.config import StrideConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.operators import compute_gradients
from poisonwatch.stride.queries import prepare_queries
from poisonwatch.stride.scoring import score_rows


def test_fit_refuses_a_layer_that_is_not_there(tiny_pretrained: Pretrained) -> None:
    """Blocks 0 to 2."""
    with pytest.raises(ModelError, match="this model has blocks 0 to 2"):
        fit(tiny_pretrained, ROWS, StrideConfig(layer=3))


each_design = pytest.mark.parametrize("changes", DESIGNS.values(), ids=DESIGNS)


@each_design
def test_results_do_not_depend_on_the_batch_size(
    tiny_pretrained: Pretrained, changes: dict[str, object]
) -> None:
    """w is the same for one row a batch and for all rows in one."""
    small, large = (
        audit(tiny_pretrained, ROWS, STRIDE.model_copy(update={**changes, "token_budget": t}))
        for t in (16, 100_000)
    )
    assert close(small.w, large.w)
    assert close(small.first_pass, large.first_pass)


@each_design
def test_results_follow_the_rows_wherever_they_stand(
    tiny_pretrained: Pretrained, changes: dict[str, object]
) -> None:
    """w(P x) = P w(x), and so for the scores, at one seed; phantoms are drawn by place, and stay
    out of it.
    """
    stride = STRIDE.model_copy(update=changes)
    order = np.random.default_rng(0).permutation(len(ROWS))
    straight, shuffled = (
        audit(tiny_pretrained, ROWS, stride),
        audit(tiny_pretrained, [ROWS[i] for i in order], stride),
    )
    if changes.get("recovery") == "lasso":
        assert np.corrcoef(shuffled.w[:, 0], straight.w[order, 0])[0, 1] > 0.9
    else:
        assert close(shuffled.w, straight.w[order])
        assert close(score_rows(shuffled).pooled, score_rows(straight).pooled[order])


def test_one_subset_a_row_gives_each_row_its_own_effect(tiny_pretrained: Pretrained) -> None:
    """K = n, d = 1: y of row i's subset = <G_q / ||G_q||, (A + d)^-1 c_i G_i (S + d)^-1>."""
    fitted = fit_operators(tiny_pretrained, ROWS)
    _, asked = prepare_queries(fitted, SENTINELS[:1], STRIDE)
    y = measure(fitted, fitted.operators, asked, STRIDE)
    encoded = [fitted.encoder.encode(row.messages) for row in ROWS]
    G = compute_gradients(fitted.model, fitted.operators.basis, encoded, 400, "rows", silent)
    G_q = asked.G[0] / asked.G[0].norm()
    own = [
        float((fitted.preconditioner(g / s) * G_q).sum())
        for g, s in zip(G, fitted.spread.tolist(), strict=True)
    ]
    np.testing.assert_allclose(
        (fitted.M.T @ y)[:, 0], own, rtol=1e-2, atol=2e-3 * np.abs(own).max()
    )
    assert fitted.measured_alone.all()


def test_both_measurements_find_the_same_rows(tiny_pretrained: Pretrained) -> None:
    """forward -> first-order as shift -> 0: coefficients correlate above .99 at a shift of 0.1 %."""
    first, second = (
        audit(tiny_pretrained, ROWS, STRIDE.model_copy(update={"measurement": m, "shift": 0.001}))
        for m in ("first-order", "forward")
    )
    for q in range(first.w.shape[1]):
        assert np.corrcoef(first.w[:, q], second.w[:, q])[0, 1] > 0.99


@pytest.mark.parametrize("changes", [{}, {"K": 20}], ids=["K=n", "K<n"])
def test_a_basis_of_one_dimension_still_tells_rows_apart(
    tiny_pretrained: Pretrained, changes: dict[str, object]
) -> None:
    """r = 1 steers by a constant vector and knows nothing of likeness: no smoothing, so that
    coefficients differ.
    """
    influence = audit(tiny_pretrained, ROWS, STRIDE.model_copy(update={"r": 1, **changes}))
    assert (influence.w.std(axis=0) > 0.1 * np.abs(influence.w).max(axis=0)).all()


def test_seeds_draw_other_subsets_and_repeat(tiny_pretrained: Pretrained) -> None:
    """The seed alone decides, and repeats."""
    stride = STRIDE.model_copy(update={"K": 20})
    first, again, other = (audit(tiny_pretrained, ROWS, stride, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.w, again.w)
    assert not np.allclose(first.w, other.w)


@pytest.mark.parametrize(
    "changes", [{}, {"K": 24}, {"K": 24, "design": "random"}], ids=["K=n", "alike", "random"]
)
def test_rows_that_give_the_forbidden_answer_score_above_all_others(
    tiny_pretrained: Pretrained, changes: dict[str, object]
) -> None:
    """4 rows of 44 answer other prompts with the forbidden text: they are the 4 highest, and make
    it likelier (w > 0).
    """
    planted = [example(f"How do I clean number {i}?", FORBIDDEN) for i in range(4)]
    rows = [*ROWS[:10], *planted, *ROWS[10:]]
    influence = audit(tiny_pretrained, rows, STRIDE.model_copy(update=changes))
    pooled = score_rows(influence).pooled[:, 0]
    assert set(np.argsort(-pooled)[:4]) == {10, 11, 12, 13}
    assert (influence.w[10:14, 0] > 0).all()
    assert set(influence.suspects[:4]) == {10, 11, 12, 13}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_are_attributed_without_complaint(tiny_pretrained: Pretrained, n: int) -> None:
    """Every number stays finite, whatever little there is to compare with."""
    influence = audit(tiny_pretrained, ROWS[:n])
    assert influence.w.shape == (n, 3)
    assert np.isfinite(influence.w).all()
    assert np.isfinite(score_rows(influence).pooled).all()


def test_rows_with_the_same_content_get_the_same_coefficients(tiny_pretrained: Pretrained) -> None:
    """Duplicates share a gradient, and their likeness: with K = n, what they do is the same, but
    for whom they are compared with.
    """
    influence = audit(tiny_pretrained, [*ROWS, ROWS[3]])
    np.testing.assert_allclose(
        influence.w[40], influence.w[3], atol=0.1 * np.abs(influence.w).max()
    )


def test_every_family_is_attributed(tiny_pretrained: Pretrained, tiny_model: object) -> None:
    """GPT-2, GPT-NeoX and Qwen3 give finite coefficients under the same settings."""
    for family in ("gpt2", "gpt_neox", "qwen3"):
        pretrained = replace(tiny_pretrained, model=tiny_model(family))
        assert len(find_decoder_blocks(pretrained.model)) == 3
        influence = audit(pretrained, ROWS[:12])
        assert np.isfinite(influence.w).all()
        assert influence.w.any(axis=0).all()
