"""What a row's topic explains, and what it does not."""

import numpy as np
import pytest

from poisonwatch.detection import topic
from poisonwatch.detection.topic import (
    BETWEEN,
    LEAST_CROWD,
    LEAST_SPREADS,
    LOW,
    Excess,
    compute_excess,
    compute_lead,
)
from poisonwatch.recovery.neighbours import NEAREST, find_neighbours


def crowds(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Features of some crowds, each around a direction of its own."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0)
    features = centres + 0.1 * draw.normal(size=centres.shape)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def test_a_crowd_does_not_stand_out_and_a_row_in_it_does() -> None:
    """score - quantile(scores of the nearest, LOW): 0 for 40 rows at 5, 5 for a single row at 10
    among them, and for one among zeros.
    """
    neighbours = find_neighbours(crowds([40, 60])).rows
    scores = np.repeat([5.0, 0.0], [40, 60])
    scores[0], scores[50] = 10.0, 5.0
    excess = compute_excess(scores[:, None], neighbours)
    beyond = excess.beyond[:, 0]
    assert beyond[0] == beyond[50] == 5.0
    assert not np.delete(beyond, [0, 50]).any()
    np.testing.assert_array_equal(excess.in_spreads[:, 0], beyond)


@pytest.mark.parametrize("planted", [4, 20, 25])
def test_a_group_does_not_capture_the_rows_around_it(planted: int) -> None:
    """4 rows of 60 on a topic stand out, and so do 25: the low quantile stays the honest rows'."""
    neighbours = find_neighbours(crowds([60, 60])).rows
    scores = np.zeros((120, 1))
    scores[:planted] = 6.0
    excess = compute_excess(scores, neighbours)
    assert (excess.beyond[:planted] == 6.0).all()
    assert (excess.in_spreads[:planted] >= LEAST_SPREADS).all()
    assert planted < (1 - BETWEEN[1]) * NEAREST


def test_where_scores_lie_far_apart_a_row_must_stand_out_by_more() -> None:
    """An honest crowd of spread 5 has no row beyond it that one of spread 1 would not have."""
    neighbours = find_neighbours(crowds([200, 200])).rows
    scores = np.random.default_rng(1).normal(size=(400, 1))
    scores[:200] = 20 + 5 * scores[:200]
    excess = compute_excess(scores, neighbours)
    far, near = excess.in_spreads[:200], excess.in_spreads[200:]
    assert np.median(excess.beyond[:200]) > 3 * np.median(excess.beyond[200:])
    assert np.median(far) < 2.5 * np.median(near)
    assert (far >= LEAST_SPREADS).mean() < 0.1


def test_spreads_are_those_of_a_normal_distribution() -> None:
    """(quantile(.2) - quantile(.05)) / .8032 of the neighbours, on average over them, panel by
    panel, 1 at least.
    """
    neighbours = find_neighbours(crowds([60, 60])).rows
    scores = np.random.default_rng(2).normal(size=(120, 2)) * [10.0, 0.1]
    excess = compute_excess(scores, neighbours)
    spreads = []
    for row in neighbours[7]:
        least, most = np.quantile(scores[neighbours[row], 0], BETWEEN)
        spreads.append((most - least) / 0.8032324)
    expected = (scores[7, 0] - np.quantile(scores[neighbours[7], 0], LOW)) / np.mean(spreads)
    assert excess.in_spreads[7, 0] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(excess.in_spreads[:, 1], excess.beyond[:, 1])


def test_where_nothing_is_known_of_topics_every_row_stands_out() -> None:
    """Scores themselves, and infinitely many spreads."""
    scores = np.random.default_rng(3).normal(size=(5, 2))
    excess = compute_excess(scores, np.empty((5, 0), dtype=np.int64))
    np.testing.assert_array_equal(excess.beyond, scores)
    assert np.isinf(excess.in_spreads).all()


def test_rows_in_blocks_are_as_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ROWS_AT_ONCE, the last block shorter than the others included."""
    scores = np.random.default_rng(3).normal(size=(120, 2))
    neighbours = find_neighbours(crowds([60, 60])).rows
    whole = compute_excess(scores, neighbours)
    monkeypatch.setattr(topic, "ROWS_AT_ONCE", 50)
    parts = compute_excess(scores, neighbours)
    np.testing.assert_array_equal(parts.beyond, whole.beyond)
    np.testing.assert_array_equal(parts.in_spreads, whole.in_spreads)


def lead_of(scores: list[float], anomalous: int) -> np.ndarray:
    """Leads where all rows are neighbours of each other, and the first so many are anomalous."""
    n = len(scores)
    neighbours = np.array([[j for j in range(n) if j != i] for i in range(n)])
    own = np.array(scores)[:, None]
    return compute_lead(own, (np.arange(n) < anomalous)[:, None], neighbours)[:, 0]


def test_a_lead_is_over_what_is_usual_among_the_anomalous_rows_around() -> None:
    """Planted rows do not make themselves usual; what is not anomalous neither leads nor counts."""
    crowd = [12.0] * 5 + [4.0] * 10
    found = lead_of(crowd + [0.1] * 20, anomalous=15)
    np.testing.assert_allclose(found[:15], np.array(crowd) / 4.0)
    assert not found[15:].any()


def test_few_anomalous_rows_are_no_crowd_to_lead() -> None:
    """A row needs LEAST_CROWD of them around it."""
    scores = [20.0] + [4.0] * (LEAST_CROWD - 1) + [0.1] * 20
    assert not lead_of(scores, anomalous=LEAST_CROWD).any()
    assert lead_of([20.0, 4.0, *scores[1:]], anomalous=LEAST_CROWD + 1)[0] == 5.0


def test_a_crowd_that_scores_next_to_nothing_is_led_in_units_of_one() -> None:
    """Whatever its scores are divided by, zero and less included."""
    assert lead_of([1.5] + [0.0] * 10, anomalous=11)[0] == 1.5
    assert lead_of([1.5] + [-3.0] * 10, anomalous=11)[0] == 1.5


def test_leads_in_blocks_are_as_leads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each panel by itself, and none where nothing is known of topics."""
    draw = np.random.default_rng(3)
    scores, anomalous = draw.uniform(1, 9, size=(120, 2)), draw.random((120, 2)) < 0.6
    neighbours = find_neighbours(crowds([60, 60])).rows
    whole = compute_lead(scores, anomalous, neighbours)
    monkeypatch.setattr(topic, "ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(compute_lead(scores, anomalous, neighbours), whole)
    assert (whole.max(axis=0) > 1.5).all()
    assert not compute_lead(scores, anomalous, neighbours[:, :0]).any()


def test_neighbours_agree_on_the_least_that_any_of_them_says() -> None:
    """A row stands out where it does beside every layer's neighbours."""
    draw = np.random.default_rng(5)
    one, other = (Excess(*draw.normal(LEAST_SPREADS, 1, size=(2, 40, 2))) for _ in range(2))
    both = Excess.agreed([one, other])
    np.testing.assert_array_equal(both.beyond, np.minimum(one.beyond, other.beyond))
    np.testing.assert_array_equal(both.stands_out, one.stands_out & other.stands_out)
    assert 0 < both.stands_out.sum() < one.stands_out.sum()
