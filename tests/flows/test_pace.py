"""The time that an audit has left: foreseen, then corrected by what its passes took."""

import pytest

from poisonwatch.flows.pace import Pace, Pass


def make_pace() -> Pace:
    return Pace([Pass("sample", 10, 10.0), Pass("fit", 100, 100.0), Pass("suspects", 5, 20.0)])


def test_before_anything_was_measured_it_is_what_was_foreseen() -> None:
    """Of the pass at hand, and of those that come."""
    assert make_pace().estimate_left("sample", 0, 10, 0.0) == pytest.approx(130)
    assert make_pace().estimate_left("fit", 50, 100, 0.5) == pytest.approx(70)


def test_passes_twice_as_slow_make_all_others_twice_as_slow() -> None:
    """What a pass took counts on once it has ended."""
    pace = make_pace()
    pace.finish("sample", 10, 20.0)
    assert pace.estimate_left("fit", 0, 100, 0.0) == pytest.approx(240)
    assert pace.estimate_left("fit", 50, 100, 100.0) == pytest.approx(140)


def test_rows_that_an_earlier_audit_measured_cost_nothing() -> None:
    """A pass of what is left of it, and none at all, count as such."""
    assert make_pace().estimate_left("fit", 0, 40, 0.0) == pytest.approx(60)
    assert make_pace().estimate_left("suspects", 0, 5, 0.0) == pytest.approx(20)


def test_what_is_left_does_not_grow_where_a_pass_has_fewer_items_than_foreseen() -> None:
    """Groups of flagged rows: their number is known last, and those past the most cost nothing."""
    groups = Pass("evidence", 4, 40.0, most=6)
    pace = Pace([Pass("fit", 100, 100.0), groups])
    assert pace.estimate_left("fit", 100, 100, 100.0) == pytest.approx(40)
    pace.finish("fit", 100, 100.0)
    assert pace.estimate_left("evidence", 0, 2, 0.0) == pytest.approx(20)
    assert pace.estimate_left("evidence", 0, 50, 0.0) == pytest.approx(60)
    assert pace.estimate_left("evidence", 9, 50, 60.0) == pytest.approx(0)


def test_a_pass_within_another_says_what_that_one_has_left() -> None:
    """And nothing once that one has ended."""
    pace = make_pace()
    assert not pace.knows("rows")
    pace.estimate_left("suspects", 1, 5, 4.0)
    assert pace.knows("rows")
    assert pace.estimate_left("rows", 3, 9, 1.0) == pytest.approx(16)
    pace.finish("suspects", 5, 20.0)
    assert pace.estimate_left("rows", 3, 9, 1.0) is None


def test_of_a_pass_that_nobody_foresaw_nothing_is_said() -> None:
    """Nor does it change what is said of the others."""
    pace = make_pace()
    pace.finish("evidence", 3, 1000.0)
    assert pace.estimate_left("evidence", 0, 3, 0.0) is None
    assert pace.estimate_left("fit", 0, 100, 0.0) == pytest.approx(120)
