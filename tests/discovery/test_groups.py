"""What new rows do that trusted rows do not is found as a group; chance is not."""

import numpy as np
import pytest

from poisonwatch.discovery.directions import Directions
from poisonwatch.discovery.groups import LEAST_NEW, find_groups

N_TRUSTED = 150


def draw_rows(draw: np.random.Generator, groups: list[int], alone: int) -> np.ndarray:
    """Unit directions in 256 dimensions: each group about a direction of its own, the rest each on
    its own.
    """
    centres = draw.normal(size=(len(groups), 256))
    parts = [
        0.7 * centres[k] + 0.7 * draw.normal(size=(size, 256)) for k, size in enumerate(groups)
    ]
    rows = np.concatenate([*parts, draw.normal(size=(alone, 256))])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compare(rows: np.ndarray) -> Directions:
    ids = tuple(f"{i:064x}" for i in range(len(rows)))
    nothing_known = np.empty((len(rows), 0), dtype=np.float32)
    return Directions((rows @ rows.T).astype(np.float32), nothing_known, ids)


def label(n_new: int, n_trusted: int = N_TRUSTED) -> np.ndarray:
    return np.arange(n_new + n_trusted) >= n_new


def with_known_groups(draw: np.random.Generator, n_new: int) -> np.ndarray:
    """Rows of ten kinds that new and trusted rows share alike, and rows on their own."""
    n = n_new + N_TRUSTED
    rows = draw_rows(draw, [12] * 10, n - 120)
    return rows[draw.permutation(n)]


def test_a_group_that_no_trusted_row_is_like_is_found() -> None:
    """Twelve planted rows among a hundred of ten known kinds: the first group, whole and pure."""
    draw = np.random.default_rng(1)
    planted = draw_rows(draw, [12], 0)
    rows = np.concatenate([planted, with_known_groups(draw, 100)])
    found = find_groups(compare(rows), label(112))
    first = found.groups[0]
    assert sorted(first.rows) == list(range(12))
    assert first.trusted_rows == ()
    assert first.q_value <= 0.1
    assert first.nearest < 0.5 < 2 * first.strength
    assert (found.n_new, found.n_trusted) == (112, N_TRUSTED)


def test_where_nothing_is_new_nothing_is_found() -> None:
    """About one batch of ten like the trusted rows has a group at a rate of .1, and no more."""
    alarms = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        found = find_groups(compare(with_known_groups(draw, 100)), label(100))
        alarms += len(found.list_found(0.1)) > 0
    assert alarms <= 4


def test_what_trusted_rows_do_too_is_no_news() -> None:
    """The same twelve rows, with six trusted rows of their kind."""
    draw = np.random.default_rng(1)
    kind = draw_rows(draw, [18], 0)
    rows = np.concatenate([kind[:12], with_known_groups(draw, 100), kind[12:]])
    found = find_groups(compare(rows), label(112, N_TRUSTED + 6))
    assert not any(set(group.rows) & set(range(12)) for group in found.list_found(0.1))


def test_a_group_within_another_is_named_too() -> None:
    """Forty new rows of one topic, of which ten push another way as well: both are groups."""
    draw = np.random.default_rng(1)
    topic = draw.normal(size=256) + draw.normal(size=(40, 256))
    topic[:10] += draw.normal(size=256)
    topic /= np.linalg.norm(topic, axis=1, keepdims=True)
    rows = np.concatenate([topic, with_known_groups(draw, 100)])
    found = find_groups(compare(rows), label(140)).list_found(0.1)
    named = [frozenset(group.rows) for group in found]
    assert frozenset(range(40)) in named
    assert frozenset(range(10)) in named


def test_without_trusted_rows_groups_are_ranked_and_none_is_news() -> None:
    """The tightest large group is first; nothing says that it is news."""
    draw = np.random.default_rng(1)
    rows = np.concatenate([draw_rows(draw, [12], 0), draw.normal(size=(100, 256)) / 16])
    found = find_groups(compare(rows), label(112, 0))
    assert sorted(found.groups[0].rows) == list(range(12))
    assert found.list_found(0.5) == ()
    assert "no trusted rows" in found.rule


def test_the_order_of_rows_does_not_matter() -> None:
    """Rows in another order make the same groups with the same numbers."""
    draw = np.random.default_rng(1)
    rows = np.concatenate([draw_rows(draw, [12], 0), with_known_groups(draw, 100)])
    directions, trusted = compare(rows), label(112)
    order = draw.permutation(len(rows))
    shuffled = Directions(
        directions.cosines[np.ix_(order, order)],
        directions.features[order],
        tuple(directions.ids[i] for i in order),
    )
    a, b = find_groups(directions, trusted), find_groups(shuffled, trusted[order])
    for one, other in zip(a.groups, b.groups, strict=True):
        assert one.rows == tuple(order[list(other.rows)])
        assert one.statistic == pytest.approx(other.statistic)
        assert one.q_value == other.q_value


def test_a_small_batch_is_said_to_be_small() -> None:
    draw = np.random.default_rng(1)
    rows = draw_rows(draw, [6], 10)
    found = find_groups(compare(rows), label(LEAST_NEW - 1, 0)[: len(rows)])
    assert found.groups == ()
    assert "too few" in found.rule
