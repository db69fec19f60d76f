"""How much more harm a group of rows does than random groups of rows like it, and how sure that is.

With h_s the harm of the group to sentinel s of S, and h_sj that of random group j, in nats a token:

    d_s = h_s - mean_j h_sj ,   d = mean_s d_s
    se^2 = (1 + 1/R) Var_j( mean_s h_sj ) + Var_s( d_s ) / S

The excess d stands in the interval d -+ t se: t is the 97.5 % quantile of Student's distribution,
its degrees of freedom those of Welch and Satterthwaite (Biometrics Bull. 2, 1946), from R - 1 and
S - 1. The first part of se^2 is how far one more random group would lie from the mean of the
others, the second how differently sentinels are moved; of a single sentinel the latter is not known
and left out. The effect is strong where the interval lies above LEAST_EFFECT, weak where it lies
above 0, and none otherwise.

LEAST_EFFECT is what nobody would notice: it takes a token's probability from, say, .100 to .105.
The groups of eight public cases (ten rows each, honest ones chosen for their push) leave room for
it: the poison that is surely beyond like rows is so by .3 nats, and no honest group's interval lies
above 0. Where sentinels are moved differently an interval of three is wide: `none` is no proof that
a group is harmless.
"""

from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import Array

LEAST_EFFECT = 0.05  # nats a token
CONFIDENCE = 0.95  # of the interval
EXTENTS = {"strong": "a strong effect", "weak": "a weak effect", "none": "no sure effect"}


@dataclass(frozen=True, slots=True)
class Excess:
    """How much more harm a group does than random groups of rows like it: `size` in nats a token,
    in the interval from `low` to `high`.
    """

    size: float
    low: float
    high: float

    @property
    def grade(self) -> str:
        """strong, weak or none."""
        if self.low > LEAST_EFFECT:
            return "strong"
        if self.low > 0:
            return "weak"
        return "none"


def compute_excess(harm: Array) -> Excess:
    """The excess of a group, from the harm (S, 1 + R) that it and R random groups do to S
    sentinels. Of a single random group no spread is known: the interval has no ends.
    """
    S, R = len(harm), harm.shape[1] - 1
    beyond = harm[:, 0] - harm[:, 1:].mean(axis=1)
    size = float(beyond.mean())
    if R < 2:
        return Excess(size, -np.inf, np.inf)
    parts = [(1 + 1 / R) * harm[:, 1:].mean(axis=0).var(ddof=1)]
    degrees = [R - 1]
    if S > 1:
        parts.append(beyond.var(ddof=1) / S)
        degrees.append(S - 1)
    variance = np.array(parts)
    if not variance.any():
        return Excess(size, size, size)
    # most of whoever reads what was found computes no interval
    from scipy.special import stdtrit

    freedom = variance.sum() ** 2 / (variance**2 / degrees).sum()
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * variance.sum() ** 0.5)
    return Excess(size, size - half, size + half)
