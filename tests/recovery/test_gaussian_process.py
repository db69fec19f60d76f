"""Gaussian-process regression against the textbook formula, its exact symmetries, and planted truth."""

import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array

from poisonwatch.recovery import gaussian_process as kriging
from poisonwatch.recovery.gaussian_process import (
    KERNEL_WIDTH,
    NOISE_VARIANCE,
    OWN_VARIANCE,
    Kernel,
    gp_regress,
    solve_conjugate_gradients,
)
from poisonwatch.recovery.membership import draw_random_membership, draw_similar_membership

N, K, D = 60, 24, 3
IDS = [f"row-{i}" for i in range(N)]


def unit_features(
    seed: int, n: int, clusters: int = 6, dimensions: int = 8, width: float = 0.3
) -> np.ndarray:
    """phi (n, dimensions) of length one, around `clusters` directions."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((clusters, dimensions))
    phi = middle[rng.integers(clusters, size=n)] + width * rng.standard_normal((n, dimensions))
    return (phi / np.linalg.norm(phi, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel(unit_features(0, N))


@pytest.fixture(scope="module")
def M() -> csr_array:
    return draw_random_membership(IDS, K, D).matrix()


@pytest.fixture(scope="module")
def Y(M: csr_array) -> np.ndarray:
    return M @ np.random.default_rng(1).standard_normal((N, 4))


def as_matrix(kernel: Kernel) -> np.ndarray:
    """The kernel as a matrix (n, n)."""
    return kernel @ np.eye(kernel.n)


def test_kriging_equals_the_textbook_formula(M: csr_array, Y: np.ndarray, kernel: Kernel) -> None:
    """w = mu + kernel M^T V^-1 (y - mu M 1), mu = (1^T M^T V^-1 y) / (1^T M^T V^-1 M 1), by a dense
    inverse.
    """
    A, C = M.toarray(), as_matrix(kernel)
    V = A @ (C + OWN_VARIANCE * np.eye(N)) @ A.T + NOISE_VARIANCE * (
        A.sum(axis=1) * (1 + OWN_VARIANCE)
    ).mean() * np.eye(K)
    inverse, ones = np.linalg.inv(V), A @ np.ones(N)
    mu = (ones @ inverse @ Y) / (ones @ inverse @ ones)
    w = mu + C @ A.T @ inverse @ (Y - np.outer(ones, mu))
    np.testing.assert_allclose(gp_regress(M, Y, kernel).w, w, rtol=1e-6, atol=1e-8)


def test_kriging_is_the_minimum_of_the_penalised_squares(
    M: csr_array, Y: np.ndarray, kernel: Kernel
) -> None:
    """f^ = argmin (y - mu M 1 - M f)^T R^-1 (y - mu M 1 - M f) + f^T kernel^-1 f, R = OWN M M^T +
    noise I; nor does mu do better.
    """
    A, C = M.toarray(), as_matrix(kernel) + 1e-9 * np.eye(N)
    R = OWN_VARIANCE * A @ A.T + NOISE_VARIANCE * (
        A.sum(axis=1) * (1 + OWN_VARIANCE)
    ).mean() * np.eye(K)
    basis = np.column_stack([A.sum(axis=1), A @ C])  # mu, and f = C alpha
    penalty = np.zeros((N + 1, N + 1))
    penalty[1:, 1:] = C
    solution = np.linalg.lstsq(
        basis.T @ np.linalg.solve(R, basis) + penalty, basis.T @ np.linalg.solve(R, Y), rcond=None
    )[0]
    np.testing.assert_allclose(
        gp_regress(M, Y, kernel).w, solution[0] + C @ solution[1:], atol=1e-4
    )


def test_conjugate_gradients_equal_the_factorisation(
    M: csr_array, Y: np.ndarray, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many subsets are solved by conjugate gradients, few by Cholesky: the same w, to the tolerance
    asked.
    """
    dense = gp_regress(M, Y, kernel)
    monkeypatch.setattr(kriging, "DENSE_UP_TO", 0)
    iterated = gp_regress(M, Y, kernel, tolerance=1e-10)
    np.testing.assert_allclose(iterated.w, dense.w, rtol=1e-5, atol=1e-7)
    # Products are summed in single precision; what this leaves is corrected.
    assert (iterated.certificate <= 1e-10).all()


@pytest.mark.parametrize("tile", [1, N, 7 * N, 1 << 22])
@pytest.mark.parametrize("d", [1, 3])
def test_the_covariance_formed_equals_the_one_applied(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tile: int, d: int
) -> None:
    """V = M (kernel + OWN I) M^T + noise I, from however small strips of the kernel; rows of sign
    -1 included.
    """
    monkeypatch.setattr(kriging, "TILE_ENTRIES", tile)
    signs = np.where(np.arange(N) % 4, 1.0, -1.0)
    M = csr_array(draw_random_membership(IDS, K, d).matrix().multiply(signs[None]))
    V, units = kriging._Covariance(M, kernel), np.eye(K)
    # The kernel is of single precision, and a strip of another width is rounded otherwise by some
    # processors.
    applied = V.apply(units, kernel @ (M.T @ units))
    np.testing.assert_allclose(V.form(), applied, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dense_up_to", [0, 3000])
def test_queries_solved_in_parts_equal_those_solved_together(
    M: csr_array, Y: np.ndarray, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, dense_up_to: int
) -> None:
    """w and certificate of 4 queries, three and one at a time; of none there are none."""
    monkeypatch.setattr(kriging, "DENSE_UP_TO", dense_up_to)
    together = gp_regress(M, Y, kernel)
    monkeypatch.setattr(kriging, "COLUMN_ENTRIES", 3 * N)
    parts = gp_regress(M, Y, kernel)
    np.testing.assert_allclose(parts.w, together.w, rtol=1e-4, atol=1e-6)
    assert (parts.certificate <= 1e-6).all()
    assert gp_regress(M, Y[:, :0], kernel).w.shape == (N, 0)


def test_single_precision_multiplies_to_its_last_digits(kernel: Kernel) -> None:
    """|kernel v (float32) - kernel v| <= 1e-6 |kernel| |v|, without features too."""
    v = np.random.default_rng(6).standard_normal((N, 3))
    for any_kernel in (kernel, Kernel(np.empty((N, 0), dtype=np.float32))):
        product = any_kernel @ v.astype(np.float32)
        assert product.dtype == np.float32
        assert (abs(product - any_kernel @ v) <= 1e-6 * (any_kernel @ abs(v))).all()


@pytest.mark.parametrize("d", [1, 3])
def test_the_preconditioner_inverts_what_is_not_the_kernel(kernel: Kernel, d: int) -> None:
    """(OWN M M^T + noise I)^-1, of subsets that share rows and of those that share none."""
    M = draw_random_membership(IDS, K, d).matrix()
    V = kriging._Covariance(M, kernel)
    dense = OWN_VARIANCE * (M @ M.T).toarray() + V.noise * np.eye(K)
    x = np.random.default_rng(7).standard_normal((K, 2))
    np.testing.assert_allclose(V.make_preconditioner()(dense @ x), x, rtol=1e-9, atol=1e-9)


def test_the_preconditioner_saves_most_products_where_subsets_share_rows() -> None:
    """K = n / 2, d = 3: less than half of the iterations that a diagonal takes, to the same goal."""
    n = 400
    phi = unit_features(8, n, clusters=40, dimensions=24)
    M = draw_similar_membership([f"row-{i}" for i in range(n)], n // 2, 3, 0, phi).matrix()
    V, kernel = kriging._Covariance(M, Kernel(phi)), Kernel(phi)
    y = M @ np.random.default_rng(8).standard_normal((n, 2))
    diagonal = V.form().diagonal()[:, None]
    counts = []
    for precondition in (V.make_preconditioner(), lambda r: r / diagonal):
        _, n_iter = solve_conjugate_gradients(
            lambda x: V.apply(x, kernel @ (M.T @ x)),
            y,
            precondition,
            goal=1e-6 * np.linalg.norm(y, axis=0),
            max_iter=3000,
        )
        counts.append(n_iter)
    assert 0 < 2 * counts[0] < counts[1]


def test_the_residual_is_small_and_honest(
    M: csr_array, Y: np.ndarray, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """||V x - y|| / ||y|| ~ 0 when solved; one step of conjugate gradients does not claim to have
    solved anything.
    """
    solved = gp_regress(M, Y, kernel)
    assert solved.certificate.shape == (4,)
    assert (solved.certificate < 1e-10).all()
    monkeypatch.setattr(kriging, "DENSE_UP_TO", 0)
    assert (gp_regress(M, Y, kernel).certificate <= 1e-6).all()
    assert (gp_regress(M, Y, kernel, max_iter=1).certificate > 1e-3).all()


def test_conjugate_gradients_solve_each_column_whatever_its_scale() -> None:
    """||V x_q - b_q|| <= tolerance ||b_q|| for every q, with b_q from 1e-8 to 1e8 and a zero
    column.
    """
    rng = np.random.default_rng(3)
    root = rng.standard_normal((30, 30))
    V = root @ root.T + np.diag(np.linspace(1, 50, 30))
    right = rng.standard_normal((30, 4)) * np.array([1e-8, 1.0, 1e8, 0.0])
    x, n_iter = solve_conjugate_gradients(
        lambda v: V @ v,
        right,
        lambda r: r / V.diagonal()[:, None],
        goal=1e-8 * np.linalg.norm(right, axis=0),
        max_iter=500,
    )
    assert 0 < n_iter < 500
    assert (np.linalg.norm(V @ x - right, axis=0) <= 2e-8 * np.linalg.norm(right, axis=0)).all()
    assert (x[:, 3] == 0).all()


def test_rows_measured_alone_and_unlike_shrink_towards_their_mean() -> None:
    """M = I, <phi_i, phi_j> = 0, c = exp(-1 / WIDTH): w = mean(y) + (1 - c) / (1 - c + OWN + noise)
    (y - mean(y)).
    """
    y = np.random.default_rng(4).standard_normal((20, 2))
    c, noise = np.exp(-1 / KERNEL_WIDTH), NOISE_VARIANCE * (1 + OWN_VARIANCE)
    w = gp_regress(csr_array(eye_array(20)), y, Kernel(np.eye(20, dtype=np.float32))).w
    np.testing.assert_allclose(
        w,
        y.mean(axis=0) + (1 - c) / (1 - c + OWN_VARIANCE + noise) * (y - y.mean(axis=0)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_copies_of_a_row_share_what_they_do() -> None:
    """phi_i = phi_j: w_i = w_j, whatever each was measured to do."""
    phi = np.repeat(np.eye(5, dtype=np.float32), 4, axis=0)
    w = gp_regress(
        csr_array(eye_array(20)), np.random.default_rng(5).standard_normal((20, 1)), Kernel(phi)
    ).w.reshape(5, 4)
    np.testing.assert_allclose(w, np.repeat(w[:, :1], 4, axis=1), atol=1e-6)


@pytest.mark.parametrize("level", [-3.0, 0.0, 0.01])
def test_a_constant_is_recovered_exactly(M: csr_array, kernel: Kernel, level: float) -> None:
    """y = c M 1 gives w = c 1, though subsets differ in size."""
    np.testing.assert_allclose(
        gp_regress(M, M @ np.full((N, 1), level), kernel).w, level, atol=1e-9
    )


def test_kriging_is_linear_and_moves_with_the_mean(
    M: csr_array, Y: np.ndarray, kernel: Kernel
) -> None:
    """w(a y_0 + b y_1 + c M 1) = a w(y_0) + b w(y_1) + c, and each query is recovered without the
    others.
    """
    w = gp_regress(M, Y, kernel).w
    mixed = 2.0 * Y[:, :1] - 0.5 * Y[:, 1:2] + 7.0 * (M @ np.ones((N, 1)))
    np.testing.assert_allclose(
        gp_regress(M, mixed, kernel).w[:, 0],
        2.0 * w[:, 0] - 0.5 * w[:, 1] + 7.0,
        rtol=1e-7,
        atol=1e-8,
    )
    np.testing.assert_allclose(gp_regress(M, Y[:, 2:3], kernel).w, w[:, 2:3], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_kriging_follows_rows_and_subsets_in_whatever_order(
    M: csr_array, Y: np.ndarray, kernel: Kernel, seed: int
) -> None:
    """w(Q M P, Q y, features P) = P w(M, y, features)."""
    rng = np.random.default_rng(seed)
    rows, subsets = rng.permutation(N), rng.permutation(K)
    shuffled = gp_regress(
        csr_array(M.toarray()[subsets][:, rows]), Y[subsets], Kernel(kernel.features[rows])
    ).w
    np.testing.assert_allclose(shuffled, gp_regress(M, Y, kernel).w[rows], rtol=1e-4, atol=1e-5)


def test_measuring_a_row_alone_sharpens_all_that_are_like_it() -> None:
    """Of two clusters told apart by no subset, one row measured alone tells w of its whole cluster."""
    phi = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    truth = np.repeat([[1.0], [-1.0]], 5, axis=0)
    together = np.ones((1, 10))
    alone = np.vstack([together, np.eye(10)[:1]])
    before = gp_regress(csr_array(together), together @ truth, Kernel(phi)).w
    after = gp_regress(csr_array(alone), alone @ truth, Kernel(phi)).w
    np.testing.assert_allclose(before, 0.0, atol=1e-9)
    assert after[:5].min() > 0.5
    assert after[5:].max() < -0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_smooth_truth_is_recovered_from_half_as_many_alike_subsets_as_rows(seed: int) -> None:
    """w = mu + f + e with f smooth over clusters, K = n / 2: std(w^ - mu - f) < 0.7 std(e), where
    each row alone leaves std(e).
    """
    n = 200
    rng = np.random.default_rng(seed)
    phi = unit_features(seed, n, clusters=10)
    smooth = 1.0 + 2.0 * (phi @ rng.standard_normal((phi.shape[1], 3)))
    own = 0.5 * rng.standard_normal((n, 3))
    M = draw_similar_membership([f"row-{i}" for i in range(n)], n // 2, 2, seed, phi).matrix()
    w = gp_regress(M, M @ (smooth + own), Kernel(phi)).w
    assert (w - smooth).std() < 0.7 * own.std()
    assert ((w - smooth).std(axis=0) < 0.3 * smooth.std(axis=0)).all()
