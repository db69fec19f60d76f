"""The configured design, and where there is nothing to choose."""

from typing import get_args

import numpy as np
import pytest

from poisonwatch.config import StrideConfig
from poisonwatch.recovery.membership import draw_random_membership, draw_similar_membership
from poisonwatch.stride.designs import DESIGNS, draw_by_design
from poisonwatch.stride.settings import resolve_settings

IDS = [f"row-{i}" for i in range(30)]
PHI = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)


def draw(stride: StrideConfig, features: np.ndarray = PHI) -> np.ndarray:
    settings = resolve_settings(stride, depth=3, width=32, n=30)
    return draw_by_design(IDS, features, settings, stride, 5).subsets


def test_designs_are_those_of_the_audit_file() -> None:
    """One function for each value of stride.design, one signature for all."""
    assert set(DESIGNS) == set(get_args(StrideConfig.model_fields["design"].annotation))


def test_the_configured_design_draws() -> None:
    """alike: by features; random: by ids."""
    similar = draw_similar_membership(IDS, 10, 3, 5, PHI).subsets
    random = draw_random_membership(IDS, 10, 3, 5).subsets
    np.testing.assert_array_equal(draw(StrideConfig(K=10)), similar)
    np.testing.assert_array_equal(draw(StrideConfig(K=10, design="random")), random)
    assert (similar != random).any()


@pytest.mark.parametrize("K", [30, 10])
def test_nothing_to_choose_is_drawn_at_random(K: int) -> None:
    """Where every row is a subset, and where nothing is known of similarity."""
    stride, features = StrideConfig(K=K), PHI
    if K < 30:
        features = np.zeros((30, 0), dtype=np.float32)
    d = 1 if K == 30 else 3
    random = draw_random_membership(IDS, K, d, 5).subsets
    np.testing.assert_array_equal(draw(stride, features), random)
