"""Operations by formula against those that torch counts while the same code runs."""

import pytest
import torch
from allocations import FlopCount
from cost_cases import COST_CASES, make_audit, make_shape

from poisonwatch.detection import confirmation, random_groups
from poisonwatch.stride import cost_flops
from poisonwatch.stride.background import Background
from poisonwatch.stride.operators import Moments, compute_row_gradients
from poisonwatch.stride.row_pass import Yardsticks
from poisonwatch.stride.similarity import compute_views

WITHIN = 0.1


@pytest.mark.parametrize("name", COST_CASES)
def test_gradients_and_effects_take_what_is_said(name: str) -> None:
    """A batch of the pass: through the model and back, G, views, background and queries."""
    case = COST_CASES[name]
    model, batch, basis = case.build(), case.make_batch(), case.make_basis()
    shape, b, Q = make_shape(model), 30, 5
    yardsticks = Yardsticks(
        basis=basis,
        background=Background(torch.ones(b, case.r, shape.D)),
        queries=torch.ones(Q, case.r, shape.D),
    )
    model.compute_state_gradients(batch)  # what is found out once about a model costs no row
    with FlopCount() as counted:
        seen = model.compute_state_gradients(batch)
        compute_views(basis, seen.z, batch)
        for at_split in seen.splits:
            yardsticks.measure(compute_row_gradients(basis, at_split))
    share = case.answers / case.width
    said = cost_flops.count_gradient_flops(shape, case.r, case.batch.tokens, case.width, share)
    said += shape.splits * cost_flops.count_effect_flops(shape, case.r, case.rows, b + Q)
    assert said == pytest.approx(counted.total, rel=WITHIN)


@pytest.mark.parametrize("name", ["blocks", "wide"])
def test_states_and_moments_take_what_is_said(name: str) -> None:
    """The basis needs the blocks below the split alone; moments are D x D and r x r a token."""
    case = COST_CASES[name]
    model, batch, basis = case.build(), case.make_batch(), case.make_basis()
    shape, tokens = make_shape(model), case.batch.tokens
    with FlopCount() as counted:
        model.compute_states(batch)
    said = cost_flops.count_forward_flops(shape, tokens, case.width, shape.layer)
    assert said == pytest.approx(counted.total, rel=WITHIN)
    seen = model.compute_state_gradients(batch)
    moments = Moments.zeros(case.r, shape.D)
    with FlopCount() as counted:
        moments += Moments.of_batch(basis, seen)
    each = 2 * (shape.D**2 + case.r**2 + shape.D * (case.r - 1))
    assert tokens * each == pytest.approx(counted.total, rel=WITHIN)


def test_evidence_is_that_of_the_confirmation() -> None:
    """The sizes of its experiment are what the estimate is made of."""
    assert cost_flops.GROUP_ROWS == random_groups.GROUP_ROWS
    assert cost_flops.POOL_ROWS == random_groups.MOST_POOL
    assert cost_flops.STEERINGS == random_groups.RANDOM_GROUPS + 1
    assert cost_flops.STEERED_ANSWERS == 2 * confirmation.MOST_CONFIRMED_SENTINELS
    assert cost_flops.GENERATED == confirmation.MOST_TOKENS


def test_stages_grow_as_their_rows_do() -> None:
    """The pass and smoothing with n, all else not at all; kept gradients spare the suspects'."""
    shape = make_shape(COST_CASES["blocks"].build())
    few = cost_flops.estimate_flops(shape, make_audit(n=100_000, keeps_gradients=False))
    many = cost_flops.estimate_flops(shape, make_audit(n=200_000, keeps_gradients=False))
    assert many.rows == pytest.approx(2 * few.rows, rel=0.01)
    assert 2 < many.smoothing / few.smoothing < 4
    assert (many.basis, many.reference, many.sentinels) == (
        few.basis,
        few.reference,
        few.sentinels,
    )
    assert many.suspects == few.suspects
    kept = cost_flops.estimate_flops(shape, make_audit(n=100_000))
    assert kept.suspects < few.suspects / 10
    assert few.total == pytest.approx(
        few.basis + few.reference + few.sentinels + few.rows + few.smoothing + few.suspects
    )


def test_known_rows_are_measured_once() -> None:
    """What the trusted rows and the background take, the pass does not take again."""
    shape = make_shape(COST_CASES["blocks"].build())
    all_known = cost_flops.estimate_flops(shape, make_audit(n=80, trusted=80))
    assert all_known.rows == 0
