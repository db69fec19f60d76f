from collections.abc import Sequence

from poisonwatch.arrays import Features
from poisonwatch.config import StrideConfig
from poisonwatch.recovery.membership import Membership, draw_alike, draw_membership
from poisonwatch.stride.settings import Settings


def draw(ids: Sequence[str], features: Features, settings: Settings, stride: StrideConfig, seed: int) -> Membership:
    """Memberships by the configured design; random, too, where every row is a subset, or nothing is known of likeness."""
    if stride.design == "random" or len(ids) == settings.K or not features.size:
        return draw_membership(ids, settings.K, settings.d, seed)
    return draw_alike(features, ids, settings.K, settings.d, seed)
