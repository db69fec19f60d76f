"""The settings that shape verdicts: what an audit's results hold for, beside model and sentinels.

Rows that were audited under others are audited again, and the gate tells them from rows that
today's settings would clear. Settings that cost memory or time alone are none of them.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from poisonwatch import __version__
from poisonwatch.attestation.statement import write_canonical
from poisonwatch.config import AuditConfig

# What a fit may take, and when it is saved.
COSTS: dict[str, Any] = {"token_budget": True, "memory_gb": True, "training": {"checkpoint_every"}}
# Of `stride`, what came after the first ledgers: left out where it is as usual, or what was audited
# before would not count.
LATER = ("further_layers",)
SHAPING = {"stride", "detection", "screens", "probes", "seed"}


@dataclass(frozen=True, slots=True)
class Strictness:
    """How strict an audit was: its false-discovery rate, of which a higher one flags more, and the
    screens that flagged rows beside attribution.
    """

    rate: float
    screens: frozenset[str]

    def is_at_least(self, rate: float | None, screens: Collection[str] | None) -> bool:
        """Whether an audit so strict flagged what one with this rate and these screens would have;
        None asks for nothing.
        """
        if rate is not None and self.rate < rate:
            return False
        return screens is None or self.screens.issuperset(screens)


def describe_verdict_settings(config: AuditConfig) -> str:
    """The settings as canonical JSON, with the Poisonwatch that judges by them: its major and minor
    version, since those after do not change verdicts.
    """
    shaping: dict[str, Any] = config.model_dump(
        mode="json", include=SHAPING, exclude={"stride": COSTS}
    )
    for name in LATER:
        if shaping["stride"][name] is None:
            del shaping["stride"][name]
    # In whatever order they are named, the screens are the same.
    shaping["screens"] = sorted(shaping["screens"])
    version = ".".join(__version__.split(".")[:2])
    return write_canonical({"poisonwatch": version, **shaping})


def parse_strictness(settings: str | None) -> Strictness | None:
    """How strict settings are that a ledger or a manifest holds; None where it does not say."""
    try:
        stored = json.loads(settings or "")
        rate = float(stored["detection"]["false_discovery_rate"])
        screens = frozenset(map(str, stored["screens"]))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return None
    # NaN is below nothing, and would do for whatever is asked.
    return Strictness(rate, screens) if 0 < rate < 1 else None
