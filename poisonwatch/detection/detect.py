"""Which new rows are flagged, and why.

A row is flagged where its score is anomalous beside the trusted rows' (or the bulk of the batch),
*and* its topic does not explain it (`topic`). A p-value is the score's alone; the q-value is 1
where the topic explains the score. Screens (`screens`) flag rows of their own, whatever the score;
they silence nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array, Features
from poisonwatch.config import DetectionConfig
from poisonwatch.detection.significance import Null, compute_p_values, compute_row_q_values
from poisonwatch.detection.topic import (
    LEVEL,
    compute_excess_over_neighbours,
    compute_margin_with_neighbours,
    find_nearest_rows,
)
from poisonwatch.examples import AuditRows, Example
from poisonwatch.flags import Flag
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.scoring import Scores, score_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The audit's answer for `rows`, n of them new: `scores`, `p`, `q` (n, P) by panel,
    `coefficients` (n, S) by sentinel, and `flags`.

    `recovered` (n, S) are the coefficients from recovery alone, before suspects were measured
    alone.

    `reference_scores` (n_ref, P) are the trusted rows' scores that p-values were taken against
    (n_ref = 0 without trusted rows), and `reference_coefficients` (n_ref, S) their coefficients.
    """

    rows: AuditRows
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

    @property
    def examples(self) -> Sequence[Example]:
        """The n new rows, in the order of the arrays."""
        return self.rows.new

    @classmethod
    def empty(cls, config: DetectionConfig) -> "Detection":
        """On no rows: no panel was measured."""
        nothing = np.zeros((0, 0))
        return cls(
            rows=AuditRows(()),
            sentinels=(),
            panels=(),
            scores=nothing,
            p=nothing,
            q=nothing,
            coefficients=nothing,
            recovered=nothing,
            reference_scores=nothing,
            reference_coefficients=nothing,
            nulls=(),
            flags=(),
            false_discovery_rate=config.false_discovery_rate,
        )


def flag_rows(
    influence: Influence,
    rows: AuditRows,
    config: DetectionConfig,
    findings: Sequence[Finding] = (),
) -> Detection:
    """Flag the new rows whose score is anomalous on any panel at the configured false-discovery
    rate, and those with `findings`.

    Raises ValueError where the influence is not that of the audit's rows, one for one.
    """
    scores = score_rows(influence)
    new_scores, trusted_scores = rows.split(scores.pooled)
    p, nulls = _compute_panel_p_values(new_scores, trusted_scores)
    topics = _explain_topics(scores, influence.features, rows)
    # What its topic explains takes part in the correction as the least anomalous row there can be.
    q = compute_row_q_values(np.where(topics.explains, 1.0, p))

    sentinels, primary = _find_primary_queries(influence)
    coefficients, reference_coefficients = rows.split(influence.w[:, primary])
    recovered, _ = rows.split(influence.first_pass[:, primary])
    detection = Detection(
        rows=rows,
        sentinels=sentinels,
        panels=scores.panels,
        scores=new_scores,
        p=p,
        q=q,
        coefficients=coefficients,
        recovered=recovered,
        reference_scores=trusted_scores,
        reference_coefficients=reference_coefficients,
        nulls=nulls,
        flags=(),
        false_discovery_rate=config.false_discovery_rate,
    )
    flags = _build_flags(detection, influence, scores, topics, findings)
    return replace(detection, flags=tuple(sorted(flags, key=_rank_flag)))


def _compute_panel_p_values(new: Array, trusted: Array) -> tuple[Array, tuple[Null, ...]]:
    """p-values (n, P) of new scores (n, P) against trusted ones (n_ref, P), panel by panel."""
    columns, nulls = [], []
    for j in range(new.shape[1]):
        p, null = compute_p_values(new[:, j], trusted[:, j])
        columns.append(p)
        nulls.append(null)
    return np.column_stack(columns), tuple(nulls)


def _find_primary_queries(influence: Influence) -> tuple[tuple[Sentinel, ...], list[int]]:
    """Every sentinel once, and the column of its first query: the forbidden answer's, where there
    is one.
    """
    first: dict[Sentinel, int] = {}
    for column, query in enumerate(influence.queries):
        first.setdefault(query.sentinel, column)
    return tuple(first), list(first.values())


# Topics


@dataclass(frozen=True, slots=True)
class _TopicExplanations:
    """Whether a row's topic explains its score on a panel: `explains` (n, P), and by which rule
    (`rules`, a list of P for each row).
    """

    explains: NDArray[np.bool_]
    rules: list[list[str]]


def _explain_topics(scores: Scores, features: Features, rows: AuditRows) -> _TopicExplanations:
    """For the new rows and every panel: do they stand out from the rows around them, or lean
    towards the forbidden answer?
    """
    n, panels = len(rows.new), len(scores.panels)
    explains = np.zeros((n, panels), dtype=bool)
    if not features.size or len(features) < 2:
        return _TopicExplanations(explains, [["nothing known of its topic"] * panels] * n)
    # The smallest p there is, where few rows have ranks alone.
    level = max(LEVEL, 1 / (1 + len(features)))
    nearest = find_nearest_rows(features)
    rules: list[list[str]] = [[] for _ in range(n)]
    for j in range(panels):
        excess = rows.split(compute_excess_over_neighbours(scores.push[:, j], nearest))
        stand_out = compute_p_values(*excess)[0]
        lean = np.ones(n)
        # A panel has margins where its sentinels have both answers.
        if not np.isnan(scores.margin[0, j]):
            margins = rows.split(compute_margin_with_neighbours(scores.margin[:, j], nearest))
            lean = compute_p_values(*margins)[0]
        explains[:, j] = np.minimum(stand_out, lean) > level
        for i in range(n):
            rules[i].append(_name_topic_rule(float(stand_out[i]), float(lean[i])))
    return _TopicExplanations(explains, rules)


def _name_topic_rule(stand_out: float, lean: float) -> str:
    """The measure of the smaller p-value, in words."""
    if stand_out <= lean:
        return f"stands out from the rows most like it (p = {stand_out:.2g})"
    return (
        "leans from the reference to the forbidden answer, and so do the rows most like it "
        f"(p = {lean:.2g})"
    )


# Flags


def _build_flags(
    detection: Detection,
    influence: Influence,
    scores: Scores,
    topics: _TopicExplanations,
    findings: Sequence[Finding],
) -> list[Flag]:
    """The flags of rows that are anomalous, or that screens found, in the order of the rows."""
    anomalous = detection.q <= detection.false_discovery_rate
    found: defaultdict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        found[finding.row].append(finding)
    flagged = set(np.flatnonzero(anomalous.any(axis=1)).tolist()) | set(found)
    flags = []
    for i in sorted(flagged):
        panel = _choose_panel(i, detection.scores, np.flatnonzero(anomalous[i]).tolist())
        column = _choose_query(i, scores, detection.panels[panel])
        flags.append(
            Flag(
                example=detection.examples[i],
                panel=detection.panels[panel],
                sentinel=scores.queries[column].sentinel,
                kind=scores.queries[column].kind,
                coefficient=float(influence.w[i, column]),
                score=float(detection.scores[i, panel]),
                rank=_rank_row(i, panel, detection.scores),
                p_value=float(detection.p[i, panel]),
                q_value=float(detection.q[i, panel]),
                rule=f"{detection.nulls[panel].rule}; {topics.rules[i][panel]}",
                by_attribution=bool(anomalous[i].any()),
                findings=tuple(found.get(i, ())),
            )
        )
    return flags


def _choose_panel(i: int, scores: Array, anomalous: Sequence[int]) -> int:
    """The panel that a flag names, of those that row i is anomalous on; of all, where only a screen
    found it.

    Several panels may agree on a row; the one where it ranks highest says best what it does.
    """
    panels = anomalous or range(scores.shape[1])
    return min(panels, key=lambda j: (_rank_row(i, j, scores), -scores[i, j]))


def _choose_query(i: int, scores: Scores, panel: str) -> int:
    """The column of the panel's query that row i pushes most."""
    columns = [c for c, query in enumerate(scores.queries) if query.sentinel.panel == panel]
    return max(columns, key=lambda c: scores.standard[i, c])


def _rank_row(i: int, panel: int, scores: Array) -> int:
    """1 for the new row with the panel's largest score."""
    return 1 + int((scores[:, panel] > scores[i, panel]).sum())


def _rank_flag(flag: Flag) -> tuple[bool, float, float, str]:
    """Strongest first, those of screens alone last; equal ones by id, whatever the rows' order."""
    return not flag.by_attribution, flag.q_value, -flag.score, flag.example.id
