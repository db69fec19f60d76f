"""Views, features and the kernel of the rows."""

import numpy as np
import pytest
import torch

from poisonwatch.model.encoding import Encoded
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.recovery.gaussian_process import KERNEL_WIDTH, Kernel
from poisonwatch.stride.operators import Basis, fit_basis
from poisonwatch.stride.similarity import VIEWS, compute_features, survey_views

R, LAYER, BUDGET, N = 6, 1, 400, 24


@pytest.fixture(scope="module")
def basis(model: FrozenModel, encoded: list[Encoded]) -> Basis:
    return fit_basis(model, encoded, R, BUDGET)


@pytest.fixture(scope="module")
def views(model: FrozenModel, encoded: list[Encoded], basis: Basis) -> np.ndarray:
    return survey_views(model, encoded, basis, BUDGET)


@pytest.fixture(scope="module")
def kernel(views: np.ndarray) -> Kernel:
    return Kernel(compute_features(views))


def as_matrix(kernel: Kernel) -> np.ndarray:
    """The kernel as a matrix (n, n)."""
    return kernel @ np.eye(kernel.n)


def test_views_equal_means_over_three_kinds_of_positions(
    model: FrozenModel, encoded: list[Encoded], basis: Basis, views: np.ndarray
) -> None:
    """view = mean_t U^T z_t / rms(z_t), t over what predicts the answer, over the answer, over
    everything; one row at a time.
    """
    for row, item in enumerate(encoded):
        with torch.no_grad():
            out = model.model(
                input_ids=torch.from_numpy(item.input_ids)[None].long(),
                output_hidden_states=True,
                use_cache=False,
            )
        z = out.hidden_states[LAYER][0]
        coordinates = (z / z.pow(2).mean(dim=1, keepdim=True).sqrt() @ basis.directions).numpy()
        answer = np.asarray(item.answer, dtype=bool)
        predicts = np.append(answer[1:], False)
        naive = [
            coordinates[mask].mean(axis=0) for mask in (predicts, answer, np.ones_like(answer))
        ]
        np.testing.assert_allclose(views[row], naive, rtol=1e-3, atol=1e-4)


def test_features_have_length_one_and_their_views_mean_zero_before_scaling(
    views: np.ndarray,
) -> None:
    """||phi_i|| = 1; each view contributes 1 / VIEWS, so that <phi_i, phi_j> is the mean of three
    cosines.
    """
    phi = compute_features(views)
    assert phi.shape == (N, VIEWS * (R - 1))
    np.testing.assert_allclose(np.linalg.norm(phi, axis=1), 1.0, rtol=1e-5)
    centred = views - views.mean(axis=0)
    cosines = [
        np.mean(
            [
                a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                for a, b in zip(centred[0], centred[j], strict=True)
            ]
        )
        for j in range(N)
    ]
    np.testing.assert_allclose(phi @ phi[0], cosines, atol=1e-5)


def test_views_do_not_depend_on_the_batches(
    model: FrozenModel, encoded: list[Encoded], basis: Basis, views: np.ndarray
) -> None:
    """survey(token_budget) is the same for one row a batch, some, and all at once."""
    for budget in (1, 10_000):
        np.testing.assert_allclose(
            survey_views(model, encoded, basis, budget), views, rtol=1e-3, atol=1e-5
        )


def test_features_follow_the_rows_in_whatever_order(
    model: FrozenModel, encoded: list[Encoded], basis: Basis, views: np.ndarray
) -> None:
    """features(P rows) = P features(rows)."""
    order = np.random.default_rng(0).permutation(N)
    shuffled = compute_features(survey_views(model, [encoded[i] for i in order], basis, BUDGET))
    np.testing.assert_allclose(shuffled, compute_features(views)[order], atol=1e-4)


def test_a_common_part_of_all_rows_is_no_likeness(views: np.ndarray) -> None:
    """features(views + constant) = features(views)."""
    offset = np.random.default_rng(1).standard_normal(views.shape[1:]).astype(np.float32)
    np.testing.assert_allclose(compute_features(views + offset), compute_features(views), atol=1e-4)


@pytest.mark.parametrize("tile", [1, N, 3 * N + 1, 1 << 22])
def test_kernel_applied_tile_by_tile_equals_the_matrix(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    """kernel @ v = dense @ v, with kernel_ij = exp((<phi_i, phi_j> - 1) / WIDTH), however few
    entries are held at a time.
    """
    v = np.random.default_rng(2).standard_normal((N, 3))
    phi = kernel.features.astype(np.float64)
    expected = np.exp((phi @ phi.T - 1.0) / KERNEL_WIDTH)
    monkeypatch.setattr("poisonwatch.recovery.gaussian_process.TILE_ENTRIES", tile)
    np.testing.assert_allclose(as_matrix(kernel), expected, rtol=1e-5)
    np.testing.assert_allclose(kernel @ v, as_matrix(kernel) @ v, rtol=1e-5, atol=1e-6)


def test_kernel_is_symmetric_positive_semi_definite_with_ones_on_the_diagonal(
    kernel: Kernel,
) -> None:
    """kernel = kernel^T, kernel_ii = 1, v^T kernel v >= 0, and every entry lies in [exp(-2 /
    WIDTH), 1].
    """
    dense = as_matrix(kernel)
    np.testing.assert_allclose(dense, dense.T, atol=1e-6)
    np.testing.assert_allclose(dense.diagonal(), 1.0, atol=1e-5)
    assert np.linalg.eigvalsh(dense).min() > -1e-5
    assert dense.min() >= np.exp(-2 / KERNEL_WIDTH) - 1e-5
    assert dense.max() <= 1 + 1e-5


def test_a_copy_of_a_row_is_most_like_it(views: np.ndarray) -> None:
    """kernel(i, j) = 1 for the same views, and less for others."""
    dense = as_matrix(Kernel(compute_features(np.concatenate([views, views[4:5]]))))
    assert dense[4, N] == pytest.approx(1.0, abs=1e-5)
    assert np.delete(dense[4], [4, N]).max() < dense[4, N]


def test_features_are_finite_where_rows_do_not_differ() -> None:
    """views_i equal for all i: phi = 0, not nan."""
    assert (compute_features(np.ones((4, VIEWS, 3), dtype=np.float32)) == 0).all()


def test_a_basis_without_directions_makes_no_row_like_another(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """r = 1: no columns, and the kernel is the identity; a constant one would give every row the
    same coefficient.
    """
    phi = compute_features(
        survey_views(model, encoded, fit_basis(model, encoded, 1, BUDGET), BUDGET)
    )
    assert phi.shape == (N, 0)
    np.testing.assert_array_equal(as_matrix(Kernel(phi)), np.eye(N))
