"""Random groups of rows like those of a group, on a tiny random model."""

import numpy as np
import pytest
import torch
from attributions import benign, fit_operators

from poisonwatch.detection import random_groups
from poisonwatch.detection.random_groups import RANDOM_GROUPS, RandomGroupPool, draw_pool
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.fitted import NaturalGradientFit

ALL = np.arange(40)
GROUP, UNFLAGGED = ALL[:4], ALL[4:]


@pytest.fixture(scope="module")
def fitted(tiny_pretrained: Pretrained) -> NaturalGradientFit:
    return fit_operators(tiny_pretrained, benign(40))


def topics(seed: int = 0) -> np.ndarray:
    """Features (40, 8) of two topics in turn: even rows are of the group's first row's topic."""
    noise = 0.1 * np.random.default_rng(seed).normal(size=(40, 8))
    phi = np.eye(8)[ALL % 2] + noise
    return (phi / np.linalg.norm(phi, axis=1, keepdims=True)).astype(np.float32)


def test_a_pool_is_of_the_groups_topic(
    fitted: NaturalGradientFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of largest <phi_i, mean phi of the group>, most alike first, with what each does."""
    monkeypatch.setattr(random_groups, "LEAST_POOL", 4)
    phi, group = topics(), np.array([0, 2, 4])
    pool = draw_pool(fitted, phi, group, np.setdiff1d(ALL, group))
    likeness = phi @ phi[group].mean(axis=0)
    expected = sorted(set(ALL) - set(group), key=lambda i: -likeness[i])[:12]
    assert pool.rows.tolist() == expected
    assert not (pool.rows % 2).any()
    torch.testing.assert_close(pool.a, fitted.compute_row_operators(pool.rows, 2048))


def test_a_pool_depends_on_ids_not_on_the_order(fitted: NaturalGradientFit) -> None:
    """The same rows where group and unflagged rows stand in another order; equal rows included, of
    which those are taken that ids and seed say.
    """
    for phi in (topics(), np.zeros((40, 0), np.float32), np.ones((40, 1), np.float32)):
        one = draw_pool(fitted, phi, GROUP[:2], UNFLAGGED)
        other = draw_pool(fitted, phi, GROUP[1::-1], UNFLAGGED[::-1].copy())
        assert one.rows.tolist() == other.rows.tolist()
    assert len(one.rows) == 32
    another = draw_pool(fitted, phi, GROUP[:2], UNFLAGGED, seed=1)
    assert set(another.rows.tolist()) != set(one.rows.tolist())


@pytest.mark.parametrize(
    ("m", "most", "size"), [(1, 30, 8), (4, 30, 16), (4, 12, 12), (10, 30, 30)]
)
def test_pools_are_bounded(
    fitted: NaturalGradientFit, monkeypatch: pytest.MonkeyPatch, m: int, most: int, size: int
) -> None:
    """POOL_TIMES rows for each of the group's, from LEAST_POOL to MOST_POOL; what there is."""
    monkeypatch.setattr(random_groups, "LEAST_POOL", 8)
    monkeypatch.setattr(random_groups, "MOST_POOL", most)
    assert len(draw_pool(fitted, topics(), ALL[:m], ALL[m:]).rows) == size
    with pytest.raises(
        ValueError, match="there are 2 unflagged rows to draw random groups of 4 from"
    ):
        draw_pool(fitted, topics(), GROUP, UNFLAGGED[:2])


def test_groups_of_a_small_pool_vary_as_those_of_a_large_one() -> None:
    """Var of a sum of m rows is m Var(row), whatever the pool's size: within a fifth over 200
    seeds, where groups without replacement of u = 2 m rows would have half of it.
    """
    rows = np.arange(8)
    a = torch.tensor([1.0, -1.0] * 4)[:, None, None]
    sums = [RandomGroupPool(rows, a, seed).draw_groups(4) for seed in range(200)]
    assert sums[0].shape == (RANDOM_GROUPS, 1, 1)
    assert float(torch.cat(sums).var()) == pytest.approx(4, rel=0.2)
