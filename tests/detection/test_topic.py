"""What a row's topic explains, and what it does not."""

import numpy as np
import pytest

from poisonwatch.detection import topic
from poisonwatch.detection.topic import (
    CLOSEST_ROWS,
    NEAREST_ROWS,
    UPPER,
    compute_excess_over_neighbours,
    compute_margin_with_neighbours,
)
from poisonwatch.recovery.neighbours import find_neighbours


def crowds(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Features of some crowds, each around a direction of its own."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0)
    features = centres + 0.1 * draw.normal(size=centres.shape)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def test_a_crowd_does_not_stand_out_and_a_row_in_it_does() -> None:
    """push - quantile(push of the nearest, 3/4): about 0 for 40 rows at 5, 5 for a single row at 10
    among them, and for one among zeros.
    """
    features = crowds([40, 60])
    push = np.repeat([5.0, 0.0], [40, 60])
    push[0], push[50] = 10.0, 5.0
    beyond = compute_excess_over_neighbours(push, find_neighbours(features).rows)
    assert beyond[0] == beyond[50] == 5.0
    assert not np.delete(beyond, [0, 50]).any()
    assert UPPER == 0.75


def test_a_group_larger_than_a_quarter_of_its_surroundings_is_a_crowd() -> None:
    """4 poison rows of 40 on a topic stand out; 20 do not: these must lean."""
    features = crowds([40, 60])
    few, many = np.zeros((2, 100))
    few[:4], many[:20] = 6.0, 6.0
    assert (
        compute_excess_over_neighbours(few, find_neighbours(features).rows)[:4] == 6.0
    ).mean() >= 0.75
    assert (
        np.median(compute_excess_over_neighbours(many, find_neighbours(features).rows)[:20]) < 6.0
    )


def test_leaning_adds_the_mean_of_the_closest_rows() -> None:
    """margin_i + mean of its CLOSEST rows' margins."""
    draw = np.random.default_rng(1)
    features, margin = crowds([30, 30]), draw.normal(size=60)
    nearest = find_neighbours(features).rows
    expected = [margin[i] + margin[nearest[i, :CLOSEST_ROWS]].mean() for i in range(60)]
    np.testing.assert_allclose(compute_margin_with_neighbours(margin, nearest), expected)


def test_the_nearest_rows_alone_count() -> None:
    """The first NEAREST_ROWS neighbours for the excess, the first CLOSEST_ROWS for the margin."""
    features, push = crowds([60, 60]), np.random.default_rng(2).normal(size=120)
    neighbours = find_neighbours(features).rows
    assert neighbours.shape[1] > NEAREST_ROWS
    for compute, m in (
        (compute_excess_over_neighbours, NEAREST_ROWS),
        (compute_margin_with_neighbours, CLOSEST_ROWS),
    ):
        np.testing.assert_array_equal(compute(push, neighbours), compute(push, neighbours[:, :m]))


def test_rows_in_blocks_are_as_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ROWS_AT_ONCE, the last block shorter than the others included."""
    push = np.random.default_rng(3).normal(size=120)
    neighbours = find_neighbours(crowds([60, 60])).rows
    measures = compute_excess_over_neighbours, compute_margin_with_neighbours
    whole = [compute(push, neighbours) for compute in measures]
    monkeypatch.setattr(topic, "ROWS_AT_ONCE", 50)
    np.testing.assert_array_equal([compute(push, neighbours) for compute in measures], whole)
