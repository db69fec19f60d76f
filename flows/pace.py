"""How long an audit still takes: what was foreseen of its passes, corrected by what they took."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Seconds of a pass below which its speed says little: the first batch is mostly slower.
LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over `items`, foreseen to take `seconds`; `label` is what its progress is called.
    Items beyond the first `most` cost nothing.
    """

    label: str
    items: float
    seconds: float
    most: float = math.inf


class Pace:
    """What is left of an audit whose passes come in this order. Passes that do not come, since
    their results are there already, cost nothing.
    """

    def __init__(self, passes: Sequence[Pass]) -> None:
        self._passes = list(passes)
        # of the passes that came to their end: what they took, and what was foreseen of them
        self._taken = 0.0
        self._foreseen = 0.0
        # of the pass at hand: what was said of it last, for passes within it
        self._said: float | None = None

    def estimate_left(self, label: str, done: float, total: float, elapsed: float) -> float | None:
        """Seconds until the end of the audit, while `done` of the `total` items of a pass took
        `elapsed` seconds. Of a pass that nobody foresaw it is what was said of the one that it is
        within; None where it is within none.
        """
        place = self._find(label)
        if place is None:
            return self._said
        item, most = self._get_item_seconds(place), self._passes[place].most
        total, done = min(total, most), min(done, most)
        after = sum(each.seconds for each in self._passes[place + 1 :])
        foreseen = self._foreseen + done * item
        taken = self._taken + elapsed
        correction = 1.0
        if taken >= LEAST_S and foreseen > 0:
            correction = taken / foreseen
        self._said = correction * ((total - done) * item + after)
        return self._said

    def finish(self, label: str, total: float, elapsed: float) -> None:
        """Take in what all items of a pass took."""
        place = self._find(label)
        if place is not None:
            self._said = None
            self._taken += elapsed
            items = min(total, self._passes[place].most)
            self._foreseen += items * self._get_item_seconds(place)

    def knows(self, label: str) -> bool:
        """Whether anything was foreseen of a pass, or of the one that it is within."""
        return self._find(label) is not None or self._said is not None

    def _find(self, label: str) -> int | None:
        for place, each in enumerate(self._passes):
            if each.label == label:
                return place
        return None

    def _get_item_seconds(self, place: int) -> float:
        each = self._passes[place]
        return each.seconds / max(each.items, 1)
