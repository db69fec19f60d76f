"""The background of a drill's audits: a sample of their own rows, whatever these are."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from poisonwatch.drills import background
from poisonwatch.drills.background import BackgroundPushes
from poisonwatch.stride.sampling import draw_order

IDS = tuple(f"{i:064x}" for i in range(9))
PUSHES = np.random.default_rng(0).normal(size=(9, 9))


@pytest.fixture(autouse=True)
def known_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each row does to each, without a model."""
    monkeypatch.setattr(background, "compute_pushes", lambda _, probes, split: PUSHES[:, probes])


def measure(ordinary: list[int], planted: list[int], most: int) -> BackgroundPushes:
    fitted: Any = SimpleNamespace(ids=IDS)
    return BackgroundPushes.measure(
        fitted, np.array(ordinary), np.array(planted), background=most, seed=0
    )


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [1, 2, 4, 7], [0, 3, 5, 6, 7, 8]])
def test_the_sample_is_the_first_of_an_audits_rows_in_the_drawn_order(rows: list[int]) -> None:
    """centre = mean / spread over the sample, for each row without its push on itself."""
    pushes = measure([0, 1, 2, 3, 4], [5, 6, 7, 8], most=9)
    centre, spread = pushes.compute_background(np.array(rows), 3)
    sample = [i for i in draw_order(IDS, 0).tolist() if i in rows][:3]
    for row, found in zip(rows, centre * spread, strict=True):
        others = [i for i in sample if i != row]
        assert found == pytest.approx(PUSHES[row, others].mean())


def test_rows_that_are_set_aside_leave_their_places_in_the_sample_to_others() -> None:
    """With as many probes as a sample has rows, each audit of the rest finds its own."""
    order = draw_order(IDS, 0).tolist()
    ordinary = [i for i in order if i < 6]
    kept = ordinary[2:]
    centre, spread = measure(kept, [6, 7, 8], most=2).compute_background(np.array(kept), 2)
    expected = [PUSHES[row, [i for i in kept[:2] if i != row]].mean() for row in kept]
    np.testing.assert_allclose(centre * spread, expected)


def test_a_copy_has_the_background_of_its_original() -> None:
    """A place that comes twice is the same row: neither pushes itself."""
    pushes = measure([0, 1, 2, 3, 4], [5, 6, 7, 8], most=9)
    first = int(draw_order(IDS, 0)[0])
    centre, spread = pushes.compute_background(np.array([*range(9), first]), 4)
    assert (centre[-1], spread[-1]) == (centre[first], spread[first])
