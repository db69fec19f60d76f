"""Smoothing over neighbours against the Gaussian process that it stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, eye_array

from poisonwatch.arrays import Features
from poisonwatch.recovery import local_kriging
from poisonwatch.recovery.estimate import Measurements
from poisonwatch.recovery.gaussian_process import (
    KERNEL_WIDTH,
    NOISE_VARIANCE,
    OWN_VARIANCE,
    Kernel,
    SmoothRecovery,
    gp_regress,
)
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.recovery.neighbours import find_neighbours


def draw_features(groups: int, each: int, spread: float = 0.3, seed: int = 0) -> Features:
    """phi of length one, `each` rows around every centre."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(np.eye(max(groups, 8))[:groups], each, axis=0)
    x = centres + spread * draw.normal(size=centres.shape)
    features: Features = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return features


def smooth(features: Features, signs: np.ndarray | None = None, k: int = 32) -> csr_array:
    if signs is None:
        signs = np.ones(len(features))
    return compute_smoother(features, find_neighbours(features, k), signs)


@settings(max_examples=30)
@given(n=st.integers(1, 40), k=st.integers(1, 10), seed=st.integers(0, 99))
def test_weights_of_a_row_sum_to_one(n: int, k: int, seed: int) -> None:
    """What all rows do alike is kept: smoother @ 1 = 1."""
    smoother = smooth(draw_features(n, 1, seed=seed), k=k)
    assert smoother.shape == (n, n)
    np.testing.assert_allclose(smoother @ np.ones(n), 1.0, atol=1e-4)
    assert np.diff(smoother.indptr).max() == min(k, n - 1) + 1


def test_weights_solve_the_ordinary_kriging_equations() -> None:
    """s_i = V^-1 (k_i + lambda 1), lambda so that they sum to one, row by row in float64."""
    features = draw_features(3, 20)
    graph = find_neighbours(features, 7)
    smoother = smooth(features, k=7).toarray()
    for i in range(60):
        N = np.array([i, *graph.rows[i]])
        phi = features[N].astype(np.float64)
        kernel = np.exp((phi @ phi.T - 1.0) / KERNEL_WIDTH)
        V = kernel + (OWN_VARIANCE + NOISE_VARIANCE * (1 + OWN_VARIANCE)) * np.eye(8)
        bordered = np.block([[V, np.ones((8, 1))], [np.ones((1, 8)), np.zeros((1, 1))]])
        expected = np.zeros(60)
        expected[N] = np.linalg.solve(bordered, np.append(kernel[:, 0], 1.0))[:8]
        np.testing.assert_allclose(smoother[i], expected, atol=1e-4)


def test_with_all_rows_as_neighbours_it_is_the_gaussian_process() -> None:
    """n = 33, k = 32: mu + f^ of `gp_regress` with M = I."""
    features = draw_features(3, 11)
    y = np.random.default_rng(1).normal(size=(33, 4))
    expected = gp_regress(csr_array(eye_array(33)), y, Kernel(features)).w
    np.testing.assert_allclose(smooth(features) @ y, expected, atol=1e-4)


def test_far_apart_groups_are_smoothed_as_the_gaussian_process_smooths_them() -> None:
    """Five topics of 30 rows, of which a row sees its own: nearly the same as with all rows."""
    features = draw_features(5, 30, spread=0.2)
    draw = np.random.default_rng(2)
    y = np.repeat(draw.normal(size=5), 30)[:, None] + 0.3 * draw.normal(size=(150, 3))
    expected = gp_regress(csr_array(eye_array(150)), y, Kernel(features)).w
    found = smooth(features, k=20) @ y
    for q in range(3):
        assert np.corrcoef(found[:, q], expected[:, q])[0, 1] > 0.99


def test_rows_of_the_same_features_share_their_value() -> None:
    """Two rows that see the same rows have the same smoothed value, as far as they differ in y not
    at all; a copy has the weight of the row itself.
    """
    kinds = draw_features(6, 1)
    features = np.concatenate([kinds, kinds])
    smoother = smooth(features, k=11).toarray()
    np.testing.assert_allclose(smoother[:6], smoother[6:], atol=1e-5)
    np.testing.assert_allclose(smoother[:, :6], smoother[:, 6:], atol=1e-5)
    y = np.random.default_rng(0).normal(size=12)
    w = smoother @ y
    np.testing.assert_allclose(w[:6], w[6:], atol=1e-5)


def test_a_lowered_row_counts_with_the_other_sign() -> None:
    """smoother = S smoother(1) S: as `SmoothRecovery` takes signs, with M = I."""
    features = draw_features(3, 11)
    signs = np.where(np.arange(33) % 4, 1.0, -1.0)
    plain, signed = smooth(features).toarray(), smooth(features, signs).toarray()
    np.testing.assert_allclose(signed, signs[:, None] * plain * signs, atol=1e-6)
    y = np.random.default_rng(3).normal(size=(33, 2))
    measured = Measurements(
        M=csr_array(eye_array(33)), y=y, features=features, signs=signs, single=0
    )
    np.testing.assert_allclose(signed @ y, SmoothRecovery()(measured).w, atol=1e-4)


def test_turning_a_row_turns_its_value_and_no_other() -> None:
    """signs_i -> -signs_i and y_i -> -y_i: w_i -> -w_i."""
    features = draw_features(2, 9)
    y = np.random.default_rng(4).normal(size=18)
    signs = np.ones(18)
    before = smooth(features) @ y
    signs[5] = y[5] = -1
    y_turned = y.copy()
    y_turned[5] = -y[5]
    turned = smooth(features, signs) @ y
    raised = smooth(features) @ y_turned
    assert turned[5] == pytest.approx(-raised[5], abs=1e-5)
    np.testing.assert_allclose(np.delete(turned, 5), np.delete(raised, 5), atol=1e-5)
    assert before.shape == turned.shape


def test_without_neighbours_nothing_is_smoothed() -> None:
    """k = 0: the identity, also for lowered rows."""
    features = np.zeros((5, 0), dtype=np.float32)
    signs = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    smoother = compute_smoother(features, NeighbourGraph.empty(5), signs)
    np.testing.assert_array_equal(smoother.toarray(), np.eye(5))


def test_noise_is_taken_out_and_what_like_rows_share_stays() -> None:
    """Rows of one topic do the same, plus noise: smoothed, the error is less than half."""
    features = draw_features(6, 40, spread=0.15)
    truth = np.repeat(np.random.default_rng(5).normal(size=6), 40)
    y = truth + 0.5 * np.random.default_rng(6).normal(size=240)
    assert np.abs(smooth(features) @ y - truth).mean() < 0.5 * np.abs(y - truth).mean()


def test_how_many_rows_are_worked_on_at_a_time_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One, seven, or all."""
    features = draw_features(3, 20)
    expected = smooth(features, k=9).toarray()
    for at_once in (1, 7):
        monkeypatch.setattr(local_kriging, "ROWS_AT_ONCE", at_once)
        np.testing.assert_allclose(smooth(features, k=9).toarray(), expected, atol=1e-6)
