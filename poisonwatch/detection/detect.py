"""Verdicts: which new rows are flagged, and why.

A row is flagged where its score is anomalous beside the trusted rows' (or the bulk of the batch),
*and* its topic does not explain it
(`topic`). A p-value is the score's alone; the q-value is 1 where the topic explains the score.
Screens (`screens`) flag rows of their own,
whatever the score; they silence nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array
from poisonwatch.config import DetectionConfig
from poisonwatch.detection.significance import Null, compute_p_values, compute_row_q_values
from poisonwatch.detection.topic import (
    LEVEL,
    compute_excess_over_neighbours,
    compute_margin_with_neighbours,
    find_nearest_rows,
)
from poisonwatch.examples import Example
from poisonwatch.flags import Flag
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.scoring import Scores, score_rows


@dataclass(frozen=True, slots=True)
class Detection:
    """The audit's answer for `examples` (n new rows): `scores`, `p`, `q` (n, P) by panel,
    `coefficients` (n, S) by sentinel, and `flags`.

    `recovered` (n, S) are the coefficients from recovery alone, before suspects were measured
    alone.

    `reference_scores` (n_ref, P) are the trusted rows' scores that p-values were taken against
    (n_ref = 0 without trusted rows), and `reference_coefficients` (n_ref, S) their coefficients.
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
    reference_coefficients: Array
    nulls: tuple[Null, ...]
    flags: tuple[Flag, ...]
    false_discovery_rate: float

    @classmethod
    def empty(cls, decision: DetectionConfig) -> "Detection":
        """On no rows: no panel was measured."""
        nothing = np.zeros((0, 0))
        return cls(
            (),
            (),
            (),
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            (),
            (),
            decision.false_discovery_rate,
        )


def flag_rows(
    influence: Influence,
    examples: Sequence[Example],
    decision: DetectionConfig,
    findings: Sequence[Finding] = (),
) -> Detection:
    """Flag the new rows whose score is anomalous on any panel at the configured false-discovery
    rate, and those with `findings`.

    The first len(examples) rows of the influence are the new ones; the rest are trusted reference
    rows.
    """
    n = len(examples)
    scores = score_rows(influence)
    new, trusted = scores.pooled[:n], scores.pooled[n:]
    judged = [compute_p_values(new[:, j], trusted[:, j]) for j in range(len(scores.panels))]
    p = np.column_stack([of_panel for of_panel, _ in judged])
    nulls = tuple(null for _, null in judged)
    topics = _explain_topics(scores, influence.features, n)
    q = compute_row_q_values(
        np.where([[topic.explains for topic in row] for row in topics], 1.0, p)
    )
    anomalous = q <= decision.false_discovery_rate
    found: dict[int, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.row, []).append(finding)
    flagged = sorted(set(np.flatnonzero(anomalous.any(axis=1)).tolist()) | set(found))
    rules = [
        [f"{null.rule}; {topic.rule}" for null, topic in zip(nulls, row, strict=True)]
        for row in topics
    ]
    flags = [
        replace(
            _build_flag(i, examples, influence, scores, p, q, rules[i], anomalous[i]),
            findings=tuple(found.get(i, ())),
        )
        for i in flagged
    ]
    sentinels = tuple(dict.fromkeys(query.sentinel for query in influence.queries))
    primary = [
        next(c for c, query in enumerate(influence.queries) if query.sentinel is s)
        for s in sentinels
    ]
    return Detection(
        tuple(examples),
        sentinels,
        scores.panels,
        new,
        p,
        q,
        influence.w[:n, primary],
        influence.alone[:n, primary],
        trusted,
        influence.w[n:, primary],
        nulls,
        tuple(
            sorted(
                flags,
                key=lambda flag: (
                    not flag.by_attribution,
                    flag.q_value,
                    -flag.score,
                    flag.example.id,
                ),
            )
        ),
        decision.false_discovery_rate,
    )


@dataclass(frozen=True, slots=True)
class _TopicExplanation:
    """Whether a row's topic explains its score on a panel, and by which rule."""

    explains: bool
    rule: str


def _explain_topics(
    scores: Scores, features: NDArray[np.float32], n: int
) -> list[list[_TopicExplanation]]:
    """For the n new rows and every panel: do they stand out from the rows around them, or lean
    towards the forbidden answer?
    """
    if not features.size or len(features) < 2:
        return [[_TopicExplanation(False, "nothing known of its topic")] * len(scores.panels)] * n
    nearest = find_nearest_rows(features)
    columns = []
    for j in range(len(scores.panels)):
        beyond = compute_excess_over_neighbours(scores.push[:, j], nearest)
        out = compute_p_values(beyond[:n], beyond[n:])[0]
        lean = np.ones(n)
        if not np.isnan(scores.margin[0, j]):
            towards = compute_margin_with_neighbours(scores.margin[:, j], nearest)
            lean = compute_p_values(towards[:n], towards[n:])[0]
        level = max(
            LEVEL, 1 / (1 + len(features))
        )  # the smallest p there is, where few rows have ranks alone
        columns.append(
            [
                _choose_explanation(*pair, level)
                for pair in zip(out.tolist(), lean.tolist(), strict=True)
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)]


def _choose_explanation(out: float, lean: float, level: float) -> _TopicExplanation:
    if out <= lean:
        return _TopicExplanation(
            out > level, f"stands out from the rows most like it (p = {out:.2g})"
        )
    return _TopicExplanation(
        lean > level,
        f"leans from the reference to the forbidden answer, and so do the rows most like it (p = {lean:.2g})",
    )


def _build_flag(
    i: int,
    examples: Sequence[Example],
    influence: Influence,
    scores: Scores,
    p: Array,
    q: Array,
    rules: Sequence[str],
    anomalous: NDArray[np.bool_],
) -> Flag:
    n = len(examples)

    def rank(j: int) -> int:
        return 1 + int((scores.pooled[:n, j] > scores.pooled[i, j]).sum())

    # Several panels may agree on a row; the one where it ranks highest says best what it does.
    panels = np.flatnonzero(anomalous).tolist() or range(len(scores.panels))
    panel = min(panels, key=lambda j: (rank(j), -scores.pooled[i, j]))
    of_panel = [
        c for c, query in enumerate(scores.queries) if query.sentinel.panel == scores.panels[panel]
    ]
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
        rule=rules[panel],
        by_attribution=bool(anomalous.any()),
    )
