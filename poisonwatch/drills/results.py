"""What a drill is asked for, and what it found: plans, detection power, and the result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from poisonwatch.drills.recipe import list_recipes, read_recipe
from poisonwatch.errors import InputError
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.text.words import plural

DEFAULT_COUNTS = (5, 10, 20)
DEFAULT_REPEATS = 3


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """Which attacks (`recipes`, all by default) are planted, how many rows of each, and how often
    each number is drawn anew.
    """

    recipes: tuple[str, ...]
    counts: tuple[int, ...] = DEFAULT_COUNTS
    repeats: int = DEFAULT_REPEATS

    @classmethod
    def from_options(
        cls,
        names: Sequence[str] | None = None,
        counts: Sequence[int] | None = None,
        repeats: int = DEFAULT_REPEATS,
    ) -> "DrillPlan":
        """Check what a user asks for. Raises InputError where a recipe does not exist, or a number
        makes no sense.
        """
        chosen = tuple(dict.fromkeys(names or list_recipes()))
        wanted = tuple(sorted(set(counts or DEFAULT_COUNTS)))
        most = find_most_rows(chosen)
        if wanted[0] < 1 or wanted[-1] > most:
            raise InputError(
                f"--counts are {', '.join(map(str, wanted))}: choose from 1 to {most}, "
                "the rows that a recipe holds"
            )
        if repeats < 1:
            raise InputError(f"--repeats is {repeats}: choose at least 1")
        return cls(chosen, wanted, repeats)


def find_most_rows(recipes: Sequence[str]) -> int:
    """How many rows of each of these recipes (all, where none is named) can be planted. Raises
    InputError where one does not exist.
    """
    # Every attack is drawn at every count, so the shortest recipe sets the limit.
    return min(read_recipe(name).size for name in recipes or list_recipes())


@dataclass(frozen=True, slots=True)
class DetectionPower:
    """What `repeats` audits with `count` planted rows of an attack found.

    `found` is in how many of them at least one planted row was flagged, `recall` the mean share of
    planted rows that were, and `recall_by_attribution` the share without those that screens alone
    flagged. `false_flags` are per 1,000 clean rows, on average. The audits have the user's
    sentinels, and `with_pack` those of the pack against the attack beside them.
    """

    recipe: str
    pack: str
    count: int
    repeats: int
    found: int
    recall: float
    recall_by_attribution: float
    false_flags: float
    with_pack: bool = False

    @property
    def pack_name(self) -> str:
        """The pack without its values."""
        return self.pack.removeprefix(PACK_PREFIX).partition("?")[0]

    @property
    def probability(self) -> float:
        """Of finding at least one planted row."""
        return self.found / self.repeats

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the probability (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
        # a second and a half to import, and plans are made of options that may be wrong
        from scipy.stats import binomtest

        interval = binomtest(self.found, self.repeats).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)

    @property
    def sentence(self) -> str:
        """The result in words."""
        low, high = self.interval
        attack = self.recipe
        if self.with_pack:
            attack += f", with pack {self.pack_name} added"
        return (
            f"{attack}: {plural(self.count, 'row')} of an attack like this would be found "
            f"with probability {self.probability:.2f} (95 % interval {low:.2f} to {high:.2f}, "
            f"{self.repeats} drawn), {self.recall:.0%} of them flagged, "
            f"at {self.false_flags:.1f} false flags per 1,000 clean rows"
        )

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"probability": self.probability, "interval": list(self.interval)}


@dataclass(frozen=True, slots=True)
class DrillResult:
    """The outcome: `powers` by recipe and count, from audits of `clean` rows beside `trusted` ones;
    `notes` say what to know about them. Not taken as clean were `suspected` rows, by the ledger,
    and those that were `flagged` before anything was planted.
    """

    powers: tuple[DetectionPower, ...]
    clean: int
    trusted: int
    notes: tuple[str, ...]
    suspected: int = 0
    flagged: int = 0

    @property
    def false_flags(self) -> float:
        """Per 1,000 clean rows, over all audits with the user's sentinels alone."""
        return float(np.mean([power.false_flags for power in self.powers if not power.with_pack]))

    @property
    def headline(self) -> list[DetectionPower]:
        """The powers of the middle count: one for each recipe, and one with its pack added where
        the user's sentinels lack it.
        """
        # Every recipe has the same counts: the plan's.
        counts = sorted({power.count for power in self.powers})
        return [power for power in self.powers if power.count == counts[len(counts) // 2]]
