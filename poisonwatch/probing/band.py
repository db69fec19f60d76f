"""How far honest tuning moves an answer: the band that a sentinel stays within.

A tuned model gives every text another loss than its base did: it learns a style, a length, a
subject. What that does to an answer which the rows do not teach is measured on ordinary prompts,
in the same two models: each of N trusted prompts with the answers of two *other* trusted rows, as
long as the sentinels' answers are. Where rows are honest a forbidden answer is such an answer, for
no row gives it to such a prompt; its change and theirs are alike but for what was planted. No model
is tuned to find out: that would cost as much as the training which is judged, and still be another.

    d (N, 2) = loss before - loss after of the ordinary pairs, in nats a token
    forbidden    d                      how much likelier an answer became that nobody taught
    reference    -d                     how much less likely
    margin       +-(d_1 - d_2)          of two such answers to a prompt, the one beyond the other

(A trusted row's own answer would be no such answer: tuning on its like raises it.) A sentinel is
beyond its band where its change exceeds all three of

    every one of the ordinary changes; their median + LEAST_SD robust standard deviations;
    their median + LEAST_MOVE nats a token.

The first holds whatever the changes are distributed like: by chance one of 2 N + 1 sentinels
exceeds it. The second makes that rare where changes are about normal; the third is for
checkpoints that hardly moved. Trusted rows that were trained on themselves widen the band, since
their answers become likelier everywhere: fewer sentinels are told of then, not more.
"""

from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import Array
from poisonwatch.recovery.robust import MAD_TO_SIGMA

LEAST_SD = 5.0  # robust standard deviations
LEAST_MOVE = 0.05  # nats a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What honest tuning does to answers of a kind, in nats a token: `centre` and `spread` (robust)
    of the ordinary changes, the `furthest` of them, and the `limit` that a sentinel stays below.
    """

    centre: float
    spread: float
    furthest: float
    limit: float


def measure_band(changes: Array) -> Band:
    """The band of some ordinary changes (m,) in nats a token."""
    centre = float(np.median(changes))
    spread = float(MAD_TO_SIGMA * np.median(np.abs(changes - centre)))
    furthest = float(changes.max())
    limit = max(furthest, centre + max(LEAST_SD * spread, LEAST_MOVE))
    return Band(centre=centre, spread=spread, furthest=furthest, limit=limit)


def measure_bands(d: Array) -> dict[str, Band]:
    """The bands by kind of query, from d (N, 2): how much likelier ordinary answers became, in
    nats a token.
    """
    apart = d[:, 0] - d[:, 1]
    return {
        "forbidden": measure_band(d.ravel()),
        "reference": measure_band(-d.ravel()),
        "margin": measure_band(np.concatenate([apart, -apart])),
    }
