"""How far sentinels moved between two models, or two steps of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poisonwatch.probing.band import Band, measure_bands
from poisonwatch.probing.questions import AnswerLosses
from poisonwatch.sentinels.sentinel import Sentinel


@dataclass(frozen=True, slots=True, kw_only=True)
class LossChange:
    """The loss of an answer before and after, in nats a token; NaN where there is no answer."""

    before: float
    after: float

    @property
    def gain(self) -> float:
        """How much likelier the answer became."""
        return self.before - self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How far a sentinel moved. `kind` is margin (forbidden beside reference) where it has both
    answers, else the one that it has.

    `change` in nats a token is positive where the model came nearer to what is forbidden, or away
    from a reference answer that stands alone; the `band` is what honest tuning does to it. `usual`
    is how much likelier ordinary answers became, at the median. `trusted` are the losses of the
    forbidden and the reference answer on a checkpoint that was tuned on trusted rows, where there
    is one: change, band and usual are counted from there.
    """

    sentinel: Sentinel
    kind: str
    forbidden: LossChange
    reference: LossChange
    change: float
    band: Band
    usual: float
    trusted: tuple[float, float] | None = None

    @property
    def is_beyond(self) -> bool:
        """Whether it moved further than honest tuning explains. What is no number did not, nor did
        a margin whose forbidden answer gained no more than ordinary ones: tuning takes the words of
        a reference answer away with the base's whole style.
        """
        start = self.forbidden.before if self.trusted is None else self.trusted[0]
        gain = start - self.forbidden.after
        if self.kind == "margin" and not gain > max(0.0, self.usual):
            return False
        return self.change > self.band.limit

    @property
    def score(self) -> float:
        """The change beyond the band's centre, in its robust standard deviations."""
        if not self.band.spread > 0:
            return 0.0
        return (self.change - self.band.centre) / self.band.spread


def find_movements(
    sentinels: Sequence[Sentinel],
    before: AnswerLosses,
    after: AnswerLosses,
    trusted: AnswerLosses | None = None,
) -> list[Movement]:
    """How far each of the sentinels (S) moved, in their order: from the base's losses to the tuned
    model's, or from those of a checkpoint that was tuned on trusted rows.
    """
    start = trusted or before
    bands = measure_bands(start.ordinary - after.ordinary)
    movements = []
    for s, sentinel in enumerate(sentinels):
        forbidden = LossChange(before=float(before.forbidden[s]), after=float(after.forbidden[s]))
        reference = LossChange(before=float(before.reference[s]), after=float(after.reference[s]))
        begun = float(start.forbidden[s]), float(start.reference[s])
        kind, change = _choose_change(
            sentinel, begun[0] - forbidden.after, begun[1] - reference.after
        )
        movement = Movement(
            sentinel=sentinel,
            kind=kind,
            forbidden=forbidden,
            reference=reference,
            change=change,
            band=bands[kind],
            usual=bands["forbidden"].centre,
            trusted=None if trusted is None else begun,
        )
        movements.append(movement)
    return movements


def _choose_change(sentinel: Sentinel, forbidden: float, reference: float) -> tuple[str, float]:
    """Kind and change of a sentinel, by what its answers gained."""
    if not sentinel.forbidden:
        return "reference", -reference
    if not sentinel.reference:
        return "forbidden", forbidden
    # What tuning does to every answer at such a prompt cancels out.
    return "margin", forbidden - reference


def list_moved(movements: Sequence[Movement]) -> list[Movement]:
    """Those that are beyond their band, furthest first."""
    beyond = [movement for movement in movements if movement.is_beyond]
    return sorted(beyond, key=lambda movement: -movement.score)


def are_finite(sentinels: Sequence[Sentinel], losses: AnswerLosses) -> bool:
    """Whether the loss of every answer that there is is a number."""
    forbidden = [losses.forbidden[s] for s, each in enumerate(sentinels) if each.forbidden]
    reference = [losses.reference[s] for s, each in enumerate(sentinels) if each.reference]
    return bool(np.isfinite([*forbidden, *reference, *losses.ordinary.ravel()]).all())
