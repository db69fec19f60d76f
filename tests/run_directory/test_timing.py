"""What stages cost."""

import mmap

import pytest

from poisonwatch.run_directory.timing import StageClock


def test_stages_are_recorded_in_order_with_positive_costs() -> None:
    """One entry a stage; memory of a living process is more than a megabyte."""
    clock = StageClock()
    with clock.stage("first"):
        pass
    with clock.stage("second"):
        pass
    assert [cost.name for cost in clock.costs] == ["first", "second"]
    assert all(cost.seconds >= 0 and cost.peak_memory_mb > 1 for cost in clock.costs)


def test_a_failing_stage_is_recorded_too() -> None:
    """Its cost is known, and the error passes through."""
    clock = StageClock()
    with pytest.raises(RuntimeError, match="broken"), clock.stage("failing"):
        raise RuntimeError("broken")
    assert [cost.name for cost in clock.costs] == ["failing"]


def test_peak_memory_sees_what_a_stage_allocates() -> None:
    """200 MB that are mapped anew (no allocator reuses them) and touched show up as at least 150."""
    clock = StageClock()
    with clock.stage("small"):
        pass
    with clock.stage("large"):
        block = mmap.mmap(-1, 200_000_000)
        block.write(b"x" * 200_000_000)
    block.close()
    assert clock.costs[1].peak_memory_mb - clock.costs[0].peak_memory_mb > 150
