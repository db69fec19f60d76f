"""The table of sentinels by groups of flagged rows."""

import numpy as np
import pytest

from poisonwatch.detection.detection import Detection, Null
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.reports.heatmap import (
    MOST_HEAT_GROUPS,
    MOST_HEAT_SENTINELS,
    arrange_heat_map,
    build_heat_map,
    choose_steps,
    compute_levels,
)
from poisonwatch.sentinels.sentinel import Sentinel


def build(
    coefficients: np.ndarray, groups: list[tuple[int, ...]]
) -> tuple[Detection, list[ClusterEvidence]]:
    """Verdicts with the coefficients (n, S), and groups of rows."""
    n, s = coefficients.shape
    examples = tuple(
        Example.from_messages([Message("user", f"question {i}")], "rows", i) for i in range(n)
    )
    sentinels = tuple(
        Sentinel(f"s-{k}", (Message("user", "?"),), "yes", "no", "safety") for k in range(s)
    )
    scores = np.zeros((n, 1))
    detection = Detection(
        rows=AuditRows(examples),
        sentinels=sentinels,
        panels=("safety",),
        scores=scores,
        p=scores,
        q=scores,
        coefficients=coefficients,
        recovered=coefficients,
        reference_scores=scores[:0],
        reference_coefficients=coefficients[:0],
        nulls=(Null("rank", 0),),
        unjudged=np.zeros(n, dtype=bool),
        flags=(),
        false_discovery_rate=0.05,
    )
    evidence = [
        ClusterEvidence(
            rows=rows,
            example_ids=tuple(examples[i].id for i in rows),
            panel="safety",
            likeness=1.0,
            example=rows[0],
            prompt_ngrams=(),
            answer_ngrams=(),
            nearest=((),) * len(rows),
            confirmation=None,
            unconfirmed="few rows",
        )
        for rows in groups
    ]
    return detection, evidence


def test_a_value_is_the_mean_over_the_rows_of_a_group() -> None:
    """Sentinels in rows, groups in columns; the sentinel that any group moves most comes first,
    whichever way.
    """
    coefficients = np.array(
        [[1.0, -8.0, 0.5], [3.0, -4.0, 0.5], [0.0, 2.0, 0.0], [90.0, 90.0, 90.0]]
    )
    heat = build_heat_map(*build(coefficients, [(0, 1), (2,)]))
    assert heat is not None
    assert heat.sentinels == ("s-1", "s-0", "s-2")
    assert heat.values.tolist() == [[-6.0, 2.0], [2.0, 0.0], [0.5, 0.0]]
    assert heat.steps == (0.5, 1.5, 5.0)
    assert heat.levels.tolist() == [[-3, 2], [2, 0], [1, 0]]
    assert (heat.sentinels_left_out, heat.groups_left_out) == (0, 0)


@pytest.mark.parametrize(
    ("value", "level"), [(0.0, 0), (0.99, 0), (1.0, 1), (2.99, 1), (3.0, 2), (10.0, 3), (1e6, 3)]
)
def test_levels_are_odd_in_the_value(value: float, level: int) -> None:
    """Seven colours, the same steps on both sides of 0."""
    levels = compute_levels(np.array([[value, -value]]), (1.0, 3.0, 10.0))
    assert levels.tolist() == [[level, -level]]


@pytest.mark.parametrize(
    ("largest", "steps"),
    [(0.0, (0.1, 0.3, 1.0)), (-4.9, (0.2, 0.6, 2.0)), (10.0, (1.0, 3.0, 10.0)), (61, (5, 15, 50))],
)
def test_a_picture_has_a_scale_of_its_own(largest: float, steps: tuple[float, ...]) -> None:
    """Its strongest colour is reached, unless nothing moves by a spread."""
    assert choose_steps(np.array([[largest, 0.1]])) == steps


def test_sentinels_of_a_panel_stand_together() -> None:
    """The most moved panel first, and in it the most moved sentinel."""
    means = np.array([[1.0], [9.0], [5.0], [7.0]])
    heat = arrange_heat_map(means, ["a1", "b1", "a2", "c1"], ["a", "b", "a", "c"])
    assert heat.sentinels == ("b1", "c1", "a2", "a1")
    assert heat.panels == ("b", "c", "a", "a")


def test_what_does_not_fit_is_counted() -> None:
    """The first groups and the most moved sentinels are kept."""
    n, s = MOST_HEAT_GROUPS + 3, MOST_HEAT_SENTINELS + 5
    coefficients = np.tile(np.arange(s, dtype=float), (n, 1))
    heat = build_heat_map(*build(coefficients, [(i,) for i in range(n)]))
    assert heat is not None
    assert heat.values.shape == heat.levels.shape == (MOST_HEAT_SENTINELS, MOST_HEAT_GROUPS)
    assert heat.sentinels[0] == f"s-{s - 1}"
    assert "s-4" not in heat.sentinels
    assert (heat.sentinels_left_out, heat.groups_left_out) == (5, 3)


def test_without_groups_there_is_no_map() -> None:
    """Nor without sentinels."""
    assert build_heat_map(*build(np.ones((3, 2)), [])) is None
    assert build_heat_map(*build(np.ones((3, 0)), [(0,)])) is None
