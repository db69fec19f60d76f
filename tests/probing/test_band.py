"""The band against changes whose distribution is known."""

import numpy as np
import pytest

from poisonwatch.probing.band import LEAST_MOVE, measure_band, measure_bands

PROMPTS = 64


@pytest.mark.parametrize(("degrees", "most"), [(np.inf, 0.001), (5.0, 0.004), (3.0, 0.01)])
def test_few_sentinels_are_beyond_a_band_that_nothing_moved(degrees: float, most: float) -> None:
    """P(change > limit) over 300 bands: about 1 / (2 N + 1) at most, far less where changes are
    normal.
    """
    draw = np.random.default_rng(0)

    def sample(*shape: int) -> np.ndarray:
        if np.isinf(degrees):
            return draw.normal(size=shape)
        return draw.standard_t(degrees, size=shape)

    beyond = []
    for _ in range(300):
        bands = measure_bands(sample(PROMPTS, 2) * 0.1)
        beyond.append(np.mean(sample(50) * 0.1 > bands["forbidden"].limit))
    assert np.mean(beyond) <= most


def test_a_checkpoint_that_hardly_moved_has_a_band_of_least_move() -> None:
    assert measure_band(np.zeros(128)).limit == LEAST_MOVE


def test_a_margins_band_is_symmetric_and_a_reference_bands_other_way_round() -> None:
    d = np.random.default_rng(1).normal(loc=0.7, size=(PROMPTS, 2))
    bands = measure_bands(d)
    assert bands["margin"].centre == pytest.approx(0.0, abs=1e-12)
    assert bands["forbidden"].centre == pytest.approx(-bands["reference"].centre)


def test_the_furthest_ordinary_change_is_within_the_band() -> None:
    changes = np.append(np.random.default_rng(2).normal(size=100), 40.0)
    assert measure_band(changes).limit == 40.0
