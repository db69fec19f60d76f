"""What each step of a training draws."""

from dataclasses import replace

import numpy as np
import pytest
from trainings import (
    SETTINGS,
    STEPS,
    K,
    N,
    draw,
    rows,
)

from poisonwatch.errors import ConfigError
from poisonwatch.model.encoding import Encoded
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.schedule import Schedule


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return rows()


def test_every_epoch_meets_each_row_once(encoded: list[Encoded]) -> None:
    """An epoch's minibatches partition the rows, in an order that differs from epoch to epoch and
    from seed to seed.
    """
    schedule = Schedule(encoded, draw(), replace(SETTINGS, rows_per_step=5), seed=0)
    assert (schedule.steps_per_epoch, schedule.steps) == (4, 12)
    epochs = [
        np.concatenate([schedule.rows(4 * epoch + place) for place in range(4)])
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    other = Schedule(encoded, draw(), replace(SETTINGS, rows_per_step=5), seed=1)
    assert (
        len(
            {
                tuple(epoch)
                for epoch in [*epochs, np.concatenate([other.rows(place) for place in range(4)])]
            }
        )
        == 4
    )


def test_each_row_meets_its_own_subsets_and_distinct_others(encoded: list[Encoded]) -> None:
    """Of a row's m operators the first d are those of its subsets; no operator comes twice."""
    membership = draw()
    schedule = Schedule(encoded, membership, SETTINGS, seed=0)
    for step in range(STEPS):
        for row, ks in zip(schedule.rows(step), schedule.operators(step), strict=True):
            assert list(ks[:2]) == list(membership.subsets[row])
            assert len(set(ks)) == 5
            assert set(ks) <= set(range(K))


def test_others_are_drawn_evenly() -> None:
    """Each of the K - d other subsets comes with probability (m - d) / (K - d): within 4.5 standard
    errors over 2,000 draws.
    """
    membership = Membership(np.array([[4, 1]] * 2000), K)
    schedule = Schedule(
        [Encoded.of([i], [True]) for i in range(2000)],
        membership,
        replace(SETTINGS, rows_per_step=2000),
        seed=5,
    )
    counts = np.bincount(schedule.operators(0)[:, 2:].ravel(), minlength=K)
    assert list(counts[[1, 4]]) == [0, 0]
    assert np.abs(counts[[0, 2, 3, 5]] / 2000 - 3 / 4).max() < 4.5 * (3 / 4 / 4 / 2000) ** 0.5


def test_sketch_keeps_the_inner_products_of_memberships(encoded: list[Encoded]) -> None:
    """E[M~ M~^T] = M M^T: the mean over 3,000 steps is within 5 standard errors, and no two steps
    share a sketch.
    """
    membership = draw()
    schedule = Schedule(encoded, membership, SETTINGS, seed=0)
    M = membership.matrix().toarray()
    sketches = [schedule.sketch(step) for step in range(3000)]
    found = np.array([sketch @ sketch.T for sketch in sketches])
    error = np.abs(found.mean(axis=0) - M @ M.T) / (found.std(axis=0) / 3000**0.5)
    assert error.max() < 5
    assert not np.allclose(sketches[0], sketches[1])


def test_what_a_step_draws_follows_the_rows_wherever_they_stand(encoded: list[Encoded]) -> None:
    """Permuting rows and memberships together permutes the minibatches and nothing else."""
    membership = draw()
    order = np.random.default_rng(0).permutation(N)
    schedule = Schedule(encoded, membership, SETTINGS, seed=0)
    moved = Schedule(
        [encoded[i] for i in order], Membership(membership.subsets[order], K), SETTINGS, seed=0
    )
    for step in (0, 7):
        np.testing.assert_array_equal(order[moved.rows(step)], schedule.rows(step))
        np.testing.assert_array_equal(moved.operators(step), schedule.operators(step))
        np.testing.assert_allclose(moved.sketch(step), schedule.sketch(step), atol=1e-12)
    assert moved.contents == schedule.contents


def test_fewer_operators_a_row_than_its_subsets_are_refused(encoded: list[Encoded]) -> None:
    """m >= d, or a row would not meet its own subsets."""
    with pytest.raises(
        ConfigError, match="1 operators a row are too few: every row is in 2 subsets"
    ):
        Schedule(encoded, draw(), replace(SETTINGS, operators_per_row=1), seed=0)
