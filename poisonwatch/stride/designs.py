"""Which rows share a subset, by the configured design."""

from collections.abc import Sequence

from poisonwatch.arrays import Features
from poisonwatch.config import StrideConfig
from poisonwatch.recovery.membership import (
    Design,
    Membership,
    draw_random_membership,
    draw_similar_membership,
)
from poisonwatch.stride.settings import Settings

DESIGNS: dict[str, Design] = {
    "alike": draw_similar_membership,
    "random": draw_random_membership,
}


def draw_by_design(
    ids: Sequence[str], features: Features, settings: Settings, stride: StrideConfig, seed: int
) -> Membership:
    """Memberships by the configured design; random, too, where every row is a subset, or nothing is
    known of similarity.
    """
    design = DESIGNS[stride.design]
    # A row that is a subset has no company to choose, and without features none is like another.
    if len(ids) == settings.K or not features.size:
        design = draw_random_membership
    return design(ids, settings.K, settings.d, seed, features)
