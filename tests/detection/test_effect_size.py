"""The excess of a group's harm over that of random groups."""

import numpy as np
import pytest
from scipy.stats import t

from poisonwatch.detection.effect_size import compute_excess

DRAW = np.random.default_rng(0)


def test_excess_of_one_sentinel_is_a_prediction_interval() -> None:
    """h - mean_j h_j -+ t_{R-1} sd sqrt(1 + 1/R): S = 1 has no spread over sentinels."""
    harm = DRAW.normal(size=(1, 10))
    random, found = harm[0, 1:], compute_excess(harm)
    half = t.ppf(0.975, 8) * random.std(ddof=1) * (1 + 1 / 9) ** 0.5
    assert found.size == pytest.approx(harm[0, 0] - random.mean())
    assert found.low == pytest.approx(found.size - half)
    assert found.high == pytest.approx(found.size + half)


def test_excess_of_groups_that_are_alike_is_the_interval_of_a_mean() -> None:
    """Var_j = 0: d -+ t_{S-1} sd(d_s) / sqrt(S)."""
    own = np.array([0.3, 0.5, 0.4])
    found = compute_excess(np.column_stack([own, np.full((3, 4), 0.1)]))
    half = t.ppf(0.975, 2) * own.std(ddof=1) / 3**0.5
    np.testing.assert_allclose([found.low, found.high], [0.3 - half, 0.3 + half])


def test_degrees_of_freedom_are_those_of_welch() -> None:
    """Two samples of S and R numbers, the second the spread of what one more would be."""
    harm = DRAW.normal(size=(4, 8))
    beyond, mean = harm[:, 0] - harm[:, 1:].mean(axis=1), harm[:, 1:].mean(axis=0)
    parts = np.array([mean.var(ddof=1) * 8 / 7, beyond.var(ddof=1) / 4])
    freedom = parts.sum() ** 2 / (parts[0] ** 2 / 6 + parts[1] ** 2 / 3)
    found = compute_excess(harm)
    assert found.high - found.size == pytest.approx(t.ppf(0.975, freedom) * parts.sum() ** 0.5)


def test_groups_like_the_others_are_rarely_beyond_them() -> None:
    """The group drawn as random groups are: the interval lies above 0 in at most 5 % of 2,000
    draws (expected: less than 2.5 %).
    """
    above = sum(compute_excess(DRAW.normal(size=(3, 10))).low > 0 for _ in range(2000))
    assert above <= 100


def test_without_a_spread_nothing_is_sure() -> None:
    """R = 1: no ends and no grade; groups that all do the same: the interval is a point."""
    assert compute_excess(np.array([[9.0, 0.0]])).grade == "none"
    found = compute_excess(np.array([[0.2, 0.0, 0.0]]))
    assert (found.low, found.high, found.grade) == (0.2, 0.2, "strong")
