"""Robust standard deviations against scipy's, and where there are none."""

import numpy as np
import pytest
from scipy.stats import median_abs_deviation

from poisonwatch.recovery.robust import compute_robust_z


def test_robust_z_counts_median_absolute_deviations() -> None:
    """(x - median) / (1.4826 MAD) by column, as scipy has it."""
    x = np.random.default_rng(0).normal(3, 2, size=(101, 4))
    expected = (x - np.median(x, axis=0)) / (1.4826 * median_abs_deviation(x, axis=0))
    np.testing.assert_allclose(compute_robust_z(x), expected)


def test_robust_z_of_normal_data_has_unit_scale_in_spite_of_outliers() -> None:
    """std of the clean part = 1 +- .1 with 5 % of the rows at 1000."""
    x = np.random.default_rng(1).normal(size=(4000, 1))
    x[:200] = 1000
    assert compute_robust_z(x)[200:].std() == pytest.approx(1, abs=0.1)


def test_robust_z_of_a_constant_column_is_zero() -> None:
    """Nothing stands out where nothing differs; no division by zero."""
    assert not compute_robust_z(np.full((5, 2), 7.0)).any()


def test_robust_z_of_a_sparse_column_counts_standard_deviations() -> None:
    """More than half zeros: (x - 0) / std."""
    x = np.zeros((100, 1))
    x[:5] = 4.0
    np.testing.assert_allclose(compute_robust_z(x), x / x.std())
