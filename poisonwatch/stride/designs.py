from collections.abc import Sequence

from poisonwatch.arrays import Features
from poisonwatch.config import StrideConfig
from poisonwatch.recovery.membership import (
    Membership,
    draw_random_membership,
    draw_similar_membership,
)
from poisonwatch.stride.settings import Settings


def draw_by_design(
    ids: Sequence[str], features: Features, settings: Settings, stride: StrideConfig, seed: int
) -> Membership:
    """Memberships by the configured design; random, too, where every row is a subset, or nothing is
    known of likeness.
    """
    if stride.design == "random" or len(ids) == settings.K or not features.size:
        return draw_random_membership(ids, settings.K, settings.d, seed)
    return draw_similar_membership(features, ids, settings.K, settings.d, seed)
