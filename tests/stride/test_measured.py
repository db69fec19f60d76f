"""From what rows do alone to coefficients, and to what the highest do to each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import SENTINELS
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from poisonwatch.arrays import RowIndices
from poisonwatch.recovery.estimate import Measurements
from poisonwatch.recovery.gaussian_process import (
    KERNEL_WIDTH,
    NOISE_VARIANCE,
    OWN_VARIANCE,
    SmoothRecovery,
)
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride import measured as of_measured
from poisonwatch.stride.influence import build_queries
from poisonwatch.stride.measured import (
    MeasuredRows,
    measure_mutual_influence,
    select_suspects,
    smooth_and_cross,
)
from poisonwatch.stride.operators import Moments, Preconditioner
from poisonwatch.stride.scoring import pool_scores

R, D = 4, 6
QUERIES = build_queries(SENTINELS)


def draw_rows(n: int, seed: int = 0, lowered: bool = False) -> MeasuredRows:
    """Rows of five topics."""
    draw = np.random.default_rng(seed)
    x = np.eye(5)[np.arange(n) % 5] + 0.3 * draw.normal(size=(n, 5))
    return MeasuredRows(
        queries=QUERIES,
        effects=draw.normal(size=(n, len(QUERIES))).astype(np.float32),
        centre=0.5 * draw.normal(size=n),
        spread=np.exp(draw.normal(size=n)),
        signs=np.where(np.arange(n) % 3 == 0, -1.0, 1.0) if lowered else np.ones(n),
        features=(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32),
    )


def draw_gradients(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, R, D, generator=torch.manual_seed(seed))


@pytest.fixture(scope="module")
def preconditioner() -> Preconditioner:
    draw = torch.manual_seed(9)
    b, g = (torch.randn(100, k, generator=draw) for k in (R, D))
    return Preconditioner(Moments(b.T @ b, g.T @ g, 100.0, 100), 0.1)


def predict(measured: MeasuredRows, y: np.ndarray) -> np.ndarray:
    """Ordinary kriging over every row's 32 nearest, one row at a time in float64."""
    n = len(y)
    neighbours = find_neighbours(measured.features)
    w = np.empty_like(y)
    for i in range(n):
        N = np.array([i, *neighbours.rows[i]])
        phi = measured.features[N].astype(np.float64)
        kernel = np.exp((phi @ phi.T - 1.0) / KERNEL_WIDTH)
        V = kernel + (OWN_VARIANCE + NOISE_VARIANCE * (1 + OWN_VARIANCE)) * np.eye(len(N))
        ones = np.ones(len(N))
        raised = measured.signs[N, None] * y[N]
        mu = (ones @ np.linalg.solve(V, raised)) / (ones @ np.linalg.solve(V, ones))
        w[i] = measured.signs[i] * (mu + kernel[0] @ np.linalg.solve(V, raised - mu))
    return w


@pytest.mark.parametrize("lowered", [False, True])
def test_coefficients_are_effects_beyond_the_background_smoothed_over_neighbours(
    preconditioner: Preconditioner, lowered: bool
) -> None:
    """w_i = mu_N + k_i' V_N^-1 (y_N - mu_N) with y = effects - centre, over i and its 32 nearest."""
    measured, G = draw_rows(90, lowered=lowered), draw_gradients(90)
    found = smooth_and_cross(measured, lambda rows: G[torch.from_numpy(rows)], preconditioner, 7)
    expected = predict(measured, measured.effects - measured.centre[:, None])
    np.testing.assert_allclose(found.w, expected, atol=1e-4)
    assert found.w.dtype == np.float64
    assert found.queries == QUERIES
    assert found.measured_alone == 90
    assert found.first_pass is found.w
    assert found.decoy_quantile is None
    assert found.neighbours.rows.shape == (90, 32)


def test_the_background_is_taken_out_exactly(preconditioner: Preconditioner) -> None:
    """Rows that do to the sentinels what they do to ordinary conversations have w = 0, however much
    their backgrounds differ.
    """
    measured, G = draw_rows(60), draw_gradients(60)
    plain = replace(
        measured, effects=np.repeat(measured.centre[:, None], 3, axis=1).astype(np.float32)
    )
    found = smooth_and_cross(plain, lambda rows: G[torch.from_numpy(rows)], preconditioner, 5)
    np.testing.assert_allclose(found.w, 0, atol=1e-6)


def test_gradients_of_suspects_alone_are_asked_for(preconditioner: Preconditioner) -> None:
    """Once, and of as many as the shortlist holds."""
    measured, G = draw_rows(80), draw_gradients(80)
    asked: list[RowIndices] = []

    def give(rows: RowIndices) -> Tensor:
        asked.append(rows)
        return G[torch.from_numpy(rows)]

    found = smooth_and_cross(measured, give, preconditioner, 9)
    assert len(asked) == 1
    np.testing.assert_array_equal(asked[0], found.suspects)
    assert len(found.suspects) == 9
    assert found.mutual_influence.shape == (9, 9)


def test_suspects_are_the_highest_on_any_panel() -> None:
    """By pooled scores, highest first; of equal rows the first."""
    draw = np.random.default_rng(0)
    w = draw.normal(size=(50, len(QUERIES)))
    w[[31, 12]] = w[[31, 31]] + 20
    found = select_suspects(QUERIES, w, 10)
    highest = pool_scores(QUERIES, w).max(axis=1)
    assert found[:2].tolist() == [12, 31]
    assert set(found.tolist()) == set(np.argsort(-highest, kind="stable")[:10].tolist())
    assert (np.diff(highest[found]) <= 0).all()
    assert len(select_suspects(QUERIES, w[:4], 10)) == 4


@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("m", [1, 2, 33])
def test_mutual_influence_of_few_rows_is_that_of_the_gaussian_process(
    preconditioner: Preconditioner, m: int, lowered: bool
) -> None:
    """Up to 33 suspects all others are neighbours: `SmoothRecovery` of y_ij = <P G_j / ||G_j||,
    G_i> / spread_i - centre_i with M = I.
    """
    measured, G = draw_rows(40, lowered=lowered), draw_gradients(m, seed=1)
    suspects = np.random.default_rng(2).permutation(40)[:m]
    found = measure_mutual_influence(measured, suspects, G, preconditioner)
    y = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            push = float((preconditioner(G[j] / G[j].norm()) * G[i]).sum())
            y[i, j] = push / measured.spread[suspects[i]] - measured.centre[suspects[i]]
    expected = SmoothRecovery()(
        Measurements(
            M=csr_array(eye_array(m)),
            y=y,
            features=measured.features[suspects],
            signs=measured.signs[suspects],
            single=0,
        )
    ).w
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(y).max())


def test_how_many_suspects_are_crossed_at_a_time_changes_nothing(
    preconditioner: Preconditioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, seven, or all."""
    measured, G, suspects = draw_rows(40), draw_gradients(30), np.arange(30)
    expected = measure_mutual_influence(measured, suspects, G, preconditioner)
    for at_once in (1, 7):
        monkeypatch.setattr(of_measured, "SUSPECTS_AT_ONCE", at_once)
        found = measure_mutual_influence(measured, suspects, G, preconditioner)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_long_gradient_is_no_stronger_tie(preconditioner: Preconditioner) -> None:
    """Column j does not change with the length of G_j, and row i not while spread_i grows with it."""
    measured, G, suspects = draw_rows(20), draw_gradients(20), np.arange(20)
    expected = measure_mutual_influence(measured, suspects, G, preconditioner)
    G[4] *= 100
    spread = measured.spread.copy()
    spread[4] *= 100
    found = measure_mutual_influence(replace(measured, spread=spread), suspects, G, preconditioner)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_row_that_moves_nothing_ties_to_nobody(preconditioner: Preconditioner) -> None:
    """G_i = 0 and spread infinite: every number stays finite."""
    measured, G, suspects = draw_rows(12), draw_gradients(12), np.arange(12)
    G[3] = 0
    spread = measured.spread.copy()
    spread[3] = np.inf
    found = measure_mutual_influence(replace(measured, spread=spread), suspects, G, preconditioner)
    assert np.isfinite(found).all()


def test_results_follow_the_rows_wherever_they_stand(preconditioner: Preconditioner) -> None:
    """w(P x) = P w(x), and the same suspects with the same ties."""
    measured, G = draw_rows(70), draw_gradients(70)
    order = np.random.default_rng(3).permutation(70)
    moved = replace(
        measured,
        effects=measured.effects[order],
        centre=measured.centre[order],
        spread=measured.spread[order],
        signs=measured.signs[order],
        features=measured.features[order],
    )
    here = smooth_and_cross(measured, lambda rows: G[torch.from_numpy(rows)], preconditioner, 8)
    there = smooth_and_cross(
        moved, lambda rows: G[torch.from_numpy(order[rows])], preconditioner, 8
    )
    np.testing.assert_allclose(there.w, here.w[order], atol=1e-5)
    np.testing.assert_array_equal(order[there.suspects], here.suspects)
    np.testing.assert_allclose(there.mutual_influence, here.mutual_influence, atol=1e-4)
