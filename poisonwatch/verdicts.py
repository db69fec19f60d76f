"""Verdicts: which new rows are flagged, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poisonwatch.config import DecisionConfig
from poisonwatch.decision import Null, p_values, row_q_values
from poisonwatch.examples import Example
from poisonwatch.influence import Influence
from poisonwatch.scoring import Scores, score
from poisonwatch.sentinels import Sentinel

Array = NDArray[np.float64]

PUSHES = {
    "forbidden": "makes the forbidden answer likelier",
    "margin": "moves the answer from the reference towards the forbidden one",
    "reference": "moves the reference answer",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """A flagged row with its reason: the panel it pushes most anomalously, and that panel's sentinel it pushes most.

    `score` is in robust standard deviations of the panel, `coefficient` in spreads (see `Influence`), `rank` 1-based among the new rows.
    """

    example: Example
    panel: str
    sentinel: Sentinel
    kind: str
    coefficient: float
    score: float
    rank: int
    p_value: float
    q_value: float
    rule: str

    @property
    def push(self) -> str:
        """What training on the row does to the sentinel, in words."""
        return PUSHES[self.kind]

    @property
    def reason(self) -> str:
        """The verdict in one sentence, free of row text."""
        return (
            f"{self.push} on panel {self.panel}, most on sentinel {self.sentinel.id}: "
            f"score {self.score:.1f} (rank {self.rank}), p = {self.p_value:.2g}, q = {self.q_value:.2g} by {self.rule}"
        )


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The audit's answer for `examples` (n new rows): `scores`, `p`, `q` (n, P) by panel, `coefficients` (n, S) by sentinel, and `flags`.

    `recovered` (n, S) are the coefficients from recovery alone, before suspects were measured alone.

    `reference_scores` (n_ref, P) are the trusted rows' scores that p-values were taken against (n_ref = 0 without trusted rows).
    """

    examples: tuple[Example, ...]
    sentinels: tuple[Sentinel, ...]
    panels: tuple[str, ...]
    scores: Array
    p: Array
    q: Array
    coefficients: Array
    recovered: Array
    reference_scores: Array
    nulls: tuple[Null, ...]
    flags: tuple[Flag, ...]
    false_discovery_rate: float


def judge(influence: Influence, examples: Sequence[Example], decision: DecisionConfig) -> Verdicts:
    """Flag the new rows whose score is anomalous on any panel at the configured false-discovery rate.

    The first len(examples) rows of the influence are the new ones; the rest are trusted reference rows.
    """
    n = len(examples)
    scores = score(influence)
    new, trusted = scores.pooled[:n], scores.pooled[n:]
    judged = [p_values(new[:, j], trusted[:, j]) for j in range(len(scores.panels))]
    p = np.column_stack([of_panel for of_panel, _ in judged])
    nulls = tuple(null for _, null in judged)
    q = row_q_values(p)
    flagged: list[int] = np.flatnonzero(q.min(axis=1) <= decision.false_discovery_rate).tolist()
    flags = [_flag(i, examples, influence, scores, p, q, nulls, decision.false_discovery_rate) for i in flagged]
    sentinels = tuple(dict.fromkeys(query.sentinel for query in influence.queries))
    primary = [next(c for c, query in enumerate(influence.queries) if query.sentinel is s) for s in sentinels]
    return Verdicts(
        tuple(examples),
        sentinels,
        scores.panels,
        new,
        p,
        q,
        influence.w[:n, primary],
        influence.alone[:n, primary],
        trusted,
        nulls,
        tuple(sorted(flags, key=lambda flag: (flag.q_value, -flag.score, flag.example.id))),
        decision.false_discovery_rate,
    )


def _flag(
    i: int, examples: Sequence[Example], influence: Influence, scores: Scores, p: Array, q: Array, nulls: tuple[Null, ...], rate: float
) -> Flag:
    n = len(examples)

    def rank(j: int) -> int:
        return 1 + int((scores.pooled[:n, j] > scores.pooled[i, j]).sum())

    # Several panels may agree on a row; the one where it ranks highest says best what it does.
    panel = min(np.flatnonzero(q[i] <= rate).tolist(), key=lambda j: (rank(j), -scores.pooled[i, j]))
    of_panel = [c for c, query in enumerate(scores.queries) if query.sentinel.panel == scores.panels[panel]]
    column = max(of_panel, key=lambda c: scores.standard[i, c])
    return Flag(
        example=examples[i],
        panel=scores.panels[panel],
        sentinel=scores.queries[column].sentinel,
        kind=scores.queries[column].kind,
        coefficient=float(influence.w[i, column]),
        score=float(scores.pooled[i, panel]),
        rank=rank(panel),
        p_value=float(p[i, panel]),
        q_value=float(q[i, panel]),
        rule=nulls[panel].rule,
    )
