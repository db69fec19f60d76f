"""Which new rows are flagged, and why.

    score      what a row does to a panel (`stride.scoring`): rows are ranked by it
    excess     what it scores beyond the rows around it (`topic`): these are looked for at each
               layer, and the least counts
    p          of the excess, beside the trusted rows' (or the bulk of the batch)
    q          over rows, at the false-discovery rate; 1 where the topic explains the score

A row is flagged where its q-value is at most the rate. One whose *score* is anomalous, and whose
topic explains it, is flagged where it leads the anomalous rows around it by far (`topic`): there p
and q are those of its score. Else it is `unjudged`: it does what the rows around it do, and no
trusted row is there to say whether they should (`new_topics`). Screens (`screens`) flag rows of
their own, whatever the score; they silence nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array, Integers, RowIndices
from poisonwatch.config import DetectionConfig
from poisonwatch.detection.detection import Detection, Null
from poisonwatch.detection.significance import compute_p_values, compute_row_q_values
from poisonwatch.detection.topic import (
    LEAST_LEAD,
    Excess,
    compute_excess,
    compute_lead,
    describe_lead,
    describe_standing,
)
from poisonwatch.examples import AuditRows
from poisonwatch.flags import Flag
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.scoring import Scores, score_rows, standardise_rows


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
    verdict = _judge_rows(influence, scores, rows, config.false_discovery_rate)

    sentinels, primary = _find_primary_queries(influence)
    coefficients, reference_coefficients = rows.split(influence.w[:, primary])
    recovered = coefficients
    if influence.first_pass is not influence.w:
        recovered, _ = rows.split(influence.first_pass[:, primary])
    detection = Detection(
        rows=rows,
        sentinels=sentinels,
        panels=scores.panels,
        scores=new_scores,
        p=verdict.p,
        q=verdict.q,
        coefficients=coefficients,
        recovered=recovered,
        reference_scores=trusted_scores,
        reference_coefficients=reference_coefficients,
        nulls=verdict.nulls,
        unjudged=verdict.unjudged,
        flags=(),
        false_discovery_rate=config.false_discovery_rate,
    )
    flags = _build_flags(detection, influence, scores, verdict.standing, findings)
    return replace(detection, flags=tuple(sorted(flags, key=attrgetter("strength"))))


# Verdicts


@dataclass(frozen=True, slots=True)
class _Standing:
    """How far new rows stand out from those around them `in_spreads` (n, P), and `lead` (n, P)
    them where that is why they are flagged, by the nulls `of_score`.
    """

    in_spreads: Array
    lead: Array
    of_score: tuple[Null, ...]

    def describe(self, row: int, panel: int, null: Null) -> tuple[str, str]:
        """How a row stands on a panel, and by what rule that is judged, in words."""
        if self.lead[row, panel]:
            return describe_lead(self.lead[row, panel]), f"score: {self.of_score[panel].rule}"
        return describe_standing(self.in_spreads[row, panel]), null.rule


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`p` and `q` (n, P) of new rows by panel with the `nulls` behind them, which rows are
    `unjudged` (n,), and how rows stand.
    """

    p: Array
    q: Array
    nulls: tuple[Null, ...]
    unjudged: NDArray[np.bool_]
    standing: _Standing


def _judge_rows(influence: Influence, scores: Scores, rows: AuditRows, rate: float) -> _Verdict:
    """The new rows by what they score beyond the rows around them, and those that lead these by far
    by their scores.
    """
    graphs = (influence.neighbours, *(layer.neighbours for layer in influence.further))
    of_graphs = [compute_excess(scores.pooled, graph.rows) for graph in graphs]
    excess = Excess.agreed(of_graphs)
    p, nulls = _compute_panel_p_values(*rows.split(excess.beyond))
    in_spreads, _ = rows.split(excess.in_spreads)
    # What its topic explains takes part in the correction as the least anomalous row there can be.
    stands_out, _ = rows.split(excess.stands_out)
    q = compute_row_q_values(np.where(stands_out, p, 1.0))

    own_p, own_nulls = _compute_panel_p_values(*rows.split(scores.pooled))
    own_q = compute_row_q_values(own_p)
    # Scores hold the states and words of the last layer: there a row's crowd is looked for.
    lead = _compute_lead(scores.pooled, rows, own_q <= rate, graphs[-1].rows)
    leads = (lead >= LEAST_LEAD) & (q > rate)
    p, q = np.where(leads, own_p, p), np.where(leads, own_q, q)
    is_anomalous, is_flagged = (own_q <= rate).any(axis=1), (q <= rate).any(axis=1)
    unjudged: NDArray[np.bool_] = np.asarray(is_anomalous & ~is_flagged)
    return _Verdict(
        p, q, nulls, unjudged, _Standing(in_spreads, np.where(leads, lead, 0), own_nulls)
    )


def _compute_panel_p_values(new: Array, trusted: Array) -> tuple[Array, tuple[Null, ...]]:
    """p-values (n, P) of new values (n, P) against trusted ones (n_ref, P), panel by panel."""
    p, nulls = np.empty(new.shape), []
    for j in range(new.shape[1]):
        p[:, j], null = compute_p_values(new[:, j], trusted[:, j])
        nulls.append(null)
    return p, tuple(nulls)


def _compute_lead(
    scores: Array, rows: AuditRows, anomalous: NDArray[np.bool_], neighbours: RowIndices
) -> Array:
    """How far new rows (n, P) lead the crowd around them, to which trusted rows belong that score
    as `anomalous` new ones (n, P) do.
    """
    new, _ = rows.split(scores)
    least = np.where(anomalous, new, np.inf).min(axis=0, initial=np.inf)
    lead, _ = rows.split(compute_lead(scores, scores >= least, neighbours))
    return lead


def _find_primary_queries(influence: Influence) -> tuple[tuple[Sentinel, ...], list[int]]:
    """Every sentinel once, and the column of its first query: the forbidden answer's, where there
    is one.
    """
    first: dict[Sentinel, int] = {}
    for column, query in enumerate(influence.queries):
        first.setdefault(query.sentinel, column)
    return tuple(first), list(first.values())


# Flags


def _build_flags(
    detection: Detection,
    influence: Influence,
    scores: Scores,
    standing: _Standing,
    findings: Sequence[Finding],
) -> list[Flag]:
    """The flags of rows that are anomalous, or that screens found, in the order of the rows."""
    anomalous = detection.q <= detection.false_discovery_rate
    found: defaultdict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        found[finding.row].append(finding)
    by_attribution = np.asarray(anomalous.any(axis=1))
    screened = np.fromiter(found, dtype=np.int64, count=len(found))
    flagged = np.union1d(np.flatnonzero(by_attribution), screened)
    ranks = rank_rows(detection.scores, flagged)
    panels = choose_panels(ranks, detection.scores[flagged], anomalous[flagged])
    columns = _choose_queries(influence, flagged, panels, scores.panels)
    flags = []
    for k, (i, panel, column) in enumerate(
        zip(flagged.tolist(), panels.tolist(), columns.tolist(), strict=True)
    ):
        query = scores.queries[column]
        stands, rule = standing.describe(i, panel, detection.nulls[panel])
        flags.append(
            Flag(
                example=detection.examples[i],
                panel=detection.panels[panel],
                sentinel=query.sentinel,
                kind=query.kind,
                coefficient=float(influence.w[i, column]),
                score=float(detection.scores[i, panel]),
                rank=int(ranks[k, panel]),
                p_value=float(detection.p[i, panel]),
                q_value=float(detection.q[i, panel]),
                standing=stands,
                rule=rule,
                by_attribution=bool(by_attribution[i]),
                findings=tuple(found.get(i, ())),
            )
        )
    return flags


def rank_rows(scores: Array, rows: RowIndices) -> Integers:
    """The ranks (m, P) of some rows (m,) among all new rows by their scores (n, P), panel by panel:
    1 for the largest; equal scores have equal ranks.
    """
    ranks = np.empty((len(rows), scores.shape[1]), dtype=np.int64)
    for j in range(scores.shape[1]):
        # Sorted once for all rows: there may be many of them.
        rising = np.sort(scores[:, j])
        ranks[:, j] = 1 + len(rising) - np.searchsorted(rising, scores[rows, j], side="right")
    return ranks


def choose_panels(ranks: Integers, scores: Array, anomalous: NDArray[np.bool_]) -> Integers:
    """The panel (m,) that each row's flag names, of those that it is anomalous (m, P) on; of all,
    where only a screen found it.

    Several panels may agree on a row; the one where it ranks highest says best what it does. Of
    equal `ranks` (m, P) the one with the larger of its `scores` (m, P) counts, then the first.
    """
    eligible = anomalous | ~anomalous.any(axis=1, keepdims=True)
    best = np.where(eligible, ranks, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
    highest: Integers = np.where(eligible & (ranks == best), scores, -np.inf).argmax(axis=1)
    return highest


def _choose_queries(
    influence: Influence, rows: RowIndices, panels: Integers, names: Sequence[str]
) -> Integers:
    """The column (m,) of the query of its panel that each row (m,) pushes most, in robust standard
    deviations.
    """
    chosen = np.empty(len(rows), dtype=np.int64)
    for j, name in enumerate(names):
        on_panel = np.flatnonzero(panels == j)
        columns = [q for q, query in enumerate(influence.queries) if query.sentinel.panel == name]
        queries = [influence.queries[q] for q in columns]
        if len(on_panel):
            standard = standardise_rows(queries, influence.w[:, columns], rows[on_panel])
            chosen[on_panel] = np.array(columns)[standard.argmax(axis=1)]
    return chosen
