"""What keeps a row from being measured: found by row, and left out whole."""

import numpy as np
import pytest
import torch

from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import Encoded
from poisonwatch.model.fault import Fault, FaultyRow, describe_fault
from poisonwatch.model.faults import (
    find_unanswered,
    has_finite_rows,
    leave_out_faulty,
    list_faulty,
    list_measured,
    require_measurable,
)
from poisonwatch.model.frozen import StateGradients

T, D = 3, 4
NAN, INF, HUGE = float("nan"), float("inf"), 1e30


def see(b: int, rejected: tuple[int, ...] = ()) -> StateGradients:
    draw = torch.Generator().manual_seed(b)
    return StateGradients(
        z=torch.randn(b, T, D, generator=draw),
        g=torch.randn(b, T, D, generator=draw),
        mask=torch.ones(b, T, dtype=torch.bool),
        loss=torch.ones(b),
        rejected=torch.tensor(rejected, dtype=torch.long),
    )


@pytest.mark.parametrize(("value", "states"), [(NAN, 2), (INF, 2), (HUGE, 2), (1e15, 0)])
def test_a_fault_is_found_in_states_loss_or_gradient(value: float, states: int) -> None:
    """Also where the numbers are finite and their squares are not; the first in the order of the
    pass counts.
    """
    seen = see(5)
    seen.z[1, 0, 2] = seen.g[2, 1, 3] = seen.z[4, 2, 0] = seen.g[4, 2, 0] = value
    seen.loss[3] = NAN
    expected = [Fault.NONE, states, 2 * states, Fault.LOSS, states]
    assert leave_out_faulty(seen)[1].tolist() == expected


def test_a_faulty_row_is_all_zero_and_none_of_its_tokens_counts() -> None:
    """Row 1 of 3 is a pair whose rejected conversation, the last of 5, overflows: both go, and no
    number of the others changes.
    """
    seen = see(5, rejected=(0, 1))
    seen.g[4, 0] = NAN
    cleared, faults = leave_out_faulty(seen)
    assert faults.tolist() == [Fault.NONE, Fault.GRADIENT, Fault.NONE]
    for values, before in ((cleared.z, seen.z), (cleared.g, seen.g), (cleared.mask, seen.mask)):
        assert not values[[1, 4]].any()
        assert torch.equal(values[[0, 2, 3]], before[[0, 2, 3]])
    assert has_finite_rows(seen.g, seen.rejected).tolist() == [True, False, True, True, False]


def test_what_is_finite_is_handed_on_untouched() -> None:
    """The same object: nothing is copied for nothing."""
    seen = see(4, rejected=(1,))
    cleared, faults = leave_out_faulty(seen)
    assert cleared is seen
    assert not faults.any()


def test_a_row_without_a_predicted_answer_token_is_found_before_any_pass() -> None:
    """The first token is predicted by none; a pair needs an answer on both sides."""
    answered, first = Encoded.of([1, 2], [False, True]), Encoded.of([1, 2], [True, False])
    pair = Encoded(answered.input_ids, answered.answer, against=first)
    empty = Encoded.of([], [])
    assert find_unanswered([answered, first, pair, empty]).tolist() == [0, 1, 1, 1]
    assert find_unanswered([]).tolist() == []


def test_rows_are_listed_by_their_faults() -> None:
    """Those that have one, and the others."""
    faults = np.array([0, 3, 0, 1], dtype=np.uint8)
    assert list_faulty(faults) == (FaultyRow(1, Fault.LOSS), FaultyRow(3, Fault.NO_ANSWER))
    assert list_measured(faults).tolist() == [0, 2]


def test_reasons_say_what_to_do() -> None:
    """By the fault, and in which numbers it is one."""
    assert describe_fault(Fault.LOSS, "torch.float16") == (
        "its loss is not a finite number in float16; set model.dtype to float32, or to bfloat16 "
        "where float16 overflows; where it is float32, look for damaged weights or text that the "
        "model was never trained on"
    )
    assert describe_fault(Fault.NO_ANSWER, "torch.float16").endswith("raise stride.max_tokens")


def test_more_than_half_of_the_rows_are_the_models_fault() -> None:
    """The commonest reason is given; half is not too many."""
    half = np.array([1, 3, 0, 0], dtype=np.uint8)
    require_measurable(half, "torch.float32")
    require_measurable(half[:0], "torch.float32")
    with pytest.raises(
        ModelError, match=r"3 of 4 rows .* most often: its loss is not .* bfloat16;"
    ):
        require_measurable(np.array([1, 3, 3, 0], dtype=np.uint8), "torch.bfloat16")
