"""The closed form against naive loops, normal equations and real forward steering."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from allocations import measure_peak
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel, StateGradients
from poisonwatch.recovery.membership import Membership, draw_random_membership
from poisonwatch.stride.operators import (
    Basis,
    Moments,
    Operators,
    Preconditioner,
    add_to_subsets,
    compute_row_gradients,
    fit_basis,
    normalise_rms,
    solve_operators,
    unit_norm,
)

R, LAYER, BUDGET = 12, 1, 400


@pytest.fixture(scope="module")
def basis(model: FrozenModel, encoded: list[Encoded]) -> Basis:
    return fit_basis(model, encoded, R, BUDGET)


@pytest.fixture(scope="module")
def membership(encoded: list[Encoded]) -> Membership:
    return draw_random_membership([str(i) for i in range(len(encoded))], 8, 3)


def seen_rows(model: FrozenModel, encoded: list[Encoded]) -> list[StateGradients]:
    """Every row alone, in order."""
    return [model.compute_state_gradients(next(make_batches([row], 1))) for row in encoded]


def sums_of(
    model: FrozenModel,
    basis: Basis,
    encoded: list[Encoded],
    membership: Membership,
    gain: float = 1.0,
) -> tuple[Moments, Tensor]:
    """The moments of all rows, and the subsets' sums of G_i / ||G_i||, with every loss multiplied
    by `gain`.
    """
    moments, sums = Moments.zeros(basis.r, 32), torch.zeros(membership.K, basis.r, 32)
    for batch in make_batches(encoded, BUDGET):
        seen = model.compute_state_gradients(batch)
        louder = StateGradients(seen.z, gain * seen.g, seen.mask, gain * seen.loss)
        moments += Moments.of_batch(basis, louder)
        add_to_subsets(
            sums,
            unit_norm(compute_row_gradients(basis, louder)),
            torch.from_numpy(membership.subsets)[batch.rows],
        )
    return moments, sums


def fit(
    model: FrozenModel,
    basis: Basis,
    encoded: list[Encoded],
    membership: Membership,
    damping: float = 0.1,
    shift: float = 0.005,
    gain: float = 1.0,
) -> Operators:
    moments, sums = sums_of(model, basis, encoded, membership, gain)
    return solve_operators(sums, Preconditioner(moments, damping), basis, shift)


def test_basis_is_orthonormal_with_a_trailing_constant(
    basis: Basis, model: FrozenModel, encoded: list[Encoded]
) -> None:
    """U^T U = I, B(z)_r = 1, and B(c z) = B(z) for c > 0."""
    torch.testing.assert_close(
        basis.directions.T @ basis.directions, torch.eye(R - 1), atol=1e-5, rtol=0
    )
    z = model.compute_states(next(make_batches(encoded, BUDGET)))
    assert basis.r == R
    assert basis(z).shape == (*z.shape[:2], R)
    assert (basis(z)[..., -1] == 1).all()
    torch.testing.assert_close(basis(100 * z), basis(z), atol=1e-3, rtol=1e-3)


def test_basis_spans_the_leading_directions_of_the_states(
    basis: Basis, model: FrozenModel, encoded: list[Encoded]
) -> None:
    """||U^T z||^2 summed over tokens = the r - 1 largest squared singular values of the normalised
    states.
    """
    z = torch.cat(
        [
            normalise_rms(model.compute_states(batch))[batch.attention_mask.bool()]
            for batch in make_batches(encoded, 1)
        ]
    )
    singular = torch.linalg.svdvals(z.double())
    torch.testing.assert_close(
        (z @ basis.directions).pow(2).sum(),
        singular[: R - 1].pow(2).sum().float(),
        rtol=1e-4,
        atol=0,
    )


def test_basis_of_one_dimension_is_the_constant(model: FrozenModel, encoded: list[Encoded]) -> None:
    """r = 1 steers by a constant vector: B(z) = 1."""
    constant = fit_basis(model, encoded, 1, BUDGET)
    assert constant.r == 1
    assert (constant(torch.randn(5, 32)) == 1).all()


def test_zero_state_has_finite_coordinates(basis: Basis) -> None:
    """A padded or dead position does not divide by zero."""
    assert torch.isfinite(basis(torch.zeros(2, 32))).all()


def test_row_gradients_equal_a_loop_over_tokens(
    basis: Basis, model: FrozenModel, encoded: list[Encoded]
) -> None:
    """G_i = sum_t B(z_t) (x) g_t over real tokens, padded or not."""
    for batch in make_batches(encoded, BUDGET):
        seen = model.compute_state_gradients(batch)
        G = compute_row_gradients(basis, seen)
        for b, row in enumerate(batch.rows.tolist()):
            naive = sum(
                torch.outer(basis(seen.z[b, t]), seen.g[b, t]) for t in range(len(encoded[row]))
            )
            torch.testing.assert_close(G[b], naive, rtol=1e-3, atol=1e-5 * float(G[b].abs().max()))


def test_row_gradient_is_the_derivative_of_the_loss_by_the_operator(
    basis: Basis, model: FrozenModel, encoded: list[Encoded]
) -> None:
    """G_i = dL_i(z + B(z)^T a)/da at a = 0, by finite differences of the steered forward pass."""
    (batch,) = make_batches(encoded[:3], 10_000)
    G = compute_row_gradients(basis, model.compute_state_gradients(batch))
    a = torch.randn(R, 32, generator=torch.Generator().manual_seed(1))
    h = 2e-4
    numeric = (
        steered_loss(model, basis, h * a, batch) - steered_loss(model, basis, -h * a, batch)
    ) / (2 * h)
    torch.testing.assert_close(
        (G * a).sum(dim=(1, 2)), numeric, rtol=0.02, atol=0.02 * float(numeric.abs().max())
    )


def test_unit_norm_rows_have_norm_one_and_nothing_stays_nothing() -> None:
    """||c_i G_i|| = 1, and 0 for G_i = 0."""
    G = torch.randn(4, 3, 5) * torch.tensor([1e-6, 1.0, 1e6, 0.0])[:, None, None]
    torch.testing.assert_close(
        unit_norm(G).flatten(1).norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0])
    )


def test_moments_and_sums_equal_loops_over_tokens_and_members(
    model: FrozenModel, basis: Basis, encoded: list[Encoded], membership: Membership
) -> None:
    """A = sum B B^T, S = sum g g^T, power = sum ||z||^2 and the subsets sum c_i G_i over i in A_k,
    row by row.
    """
    moments, sums = sums_of(model, basis, encoded, membership)
    seen = seen_rows(model, encoded)
    B, g, z = (
        torch.cat([basis(s.z[0]) for s in seen]),
        torch.cat([s.g[0] for s in seen]),
        torch.cat([s.z[0] for s in seen]),
    )
    rows = torch.cat([compute_row_gradients(basis, s) for s in seen])
    M = torch.from_numpy(membership.matrix().toarray()).float()
    members = torch.einsum("ki,ird->krd", M, rows / rows.flatten(1).norm(dim=1)[:, None, None])
    for found, expected in ((moments.A, B.T @ B), (moments.S, g.T @ g), (sums, members)):
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    assert moments.power == pytest.approx(float(z.pow(2).sum()), rel=1e-5)


@pytest.mark.parametrize("damping", [0.01, 0.1, 1.0])
def test_operators_solve_the_damped_normal_equations(
    model: FrozenModel, basis: Basis, encoded: list[Encoded], membership: Membership, damping: float
) -> None:
    """(A + delta_A I) a_k (S + delta_S I) = -eta sum_{i in A_k} c_i G_i, with delta = damping x
    mean diagonal.
    """
    moments, sums = sums_of(model, basis, encoded, membership)
    # Operators take the sums' place.
    operators = solve_operators(sums.clone(), Preconditioner(moments, damping), basis, 0.005)

    def damped(factor: Tensor) -> Tensor:
        mean = (factor / moments.tokens).double()
        return mean + damping * mean.diagonal().mean() * torch.eye(len(mean))

    left = damped(moments.A) @ operators.a.double() @ damped(moments.S)
    right = -operators.eta * sums.double()
    torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-4 * float(right.abs().max()))
    assert operators.eta > 0


def test_preconditioner_is_symmetric_and_positive_definite(
    model: FrozenModel, basis: Basis, encoded: list[Encoded], membership: Membership
) -> None:
    """<P G, H> = <G, P H> and <P G, G> > 0: without it a row could make its own answer less likely."""
    moments, sums = sums_of(model, basis, encoded, membership)
    P = Preconditioner(moments, 0.1)
    gram = P(sums).flatten(1) @ sums.flatten(1).T
    torch.testing.assert_close(gram, gram.T, rtol=1e-3, atol=1e-4 * float(gram.abs().max()))
    assert (gram.diagonal() > 0).all()


@pytest.mark.parametrize("at_once", [1, 3 * R * 32, 1 << 23])
def test_preconditioning_in_parts_equals_two_inverses(
    model: FrozenModel,
    basis: Basis,
    encoded: list[Encoded],
    membership: Membership,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    """P G = (A + damping)^-1 G (S + damping)^-1 for one G, for none, and for a (2, 4) grid of them,
    however few numbers are worked on at a time; `overwrite` leaves it where G was.
    """
    monkeypatch.setattr("poisonwatch.stride.operators.NUMBERS_AT_ONCE", at_once)
    moments, sums = sums_of(model, basis, encoded, membership)
    P = Preconditioner(moments, 0.1)
    left, right = (
        torch.linalg.inv(mean + 0.1 * mean.diagonal().mean() * torch.eye(len(mean)))
        for mean in ((m / moments.tokens).double() for m in (moments.A, moments.S))
    )
    expected = (left @ sums.double() @ right).float()
    close = {"rtol": 1e-3, "atol": 1e-4 * float(expected.abs().max())}
    before = sums.clone()
    torch.testing.assert_close(P(sums.view(2, 4, R, 32)).view(8, R, 32), expected, **close)
    torch.testing.assert_close(P(sums[3]), expected[3], **close)
    assert P(sums[:0]).shape == (0, R, 32)
    torch.testing.assert_close(sums, before, rtol=0, atol=0)
    assert P.overwrite(sums) is sums
    torch.testing.assert_close(sums, expected, **close)


def test_solving_for_operators_takes_one_part_more(
    monkeypatch: pytest.MonkeyPatch, basis: Basis
) -> None:
    """K operators where their sums stood: what is allocated on the way is bounded by four parts,
    not by K, nor by K factors of D x D, as a batch of K systems would copy them. It comes to the
    same within 1e-6.
    """
    K, D, part = 400, 64, 1 << 14
    monkeypatch.setattr("poisonwatch.stride.operators.NUMBERS_AT_ONCE", part)
    draw = torch.randn(200, D, generator=torch.Generator().manual_seed(0))
    moments = Moments(draw[:, :R].T @ draw[:, :R], draw.T @ draw, 1.0, 200)
    P, sums = Preconditioner(moments, 0.1), torch.randn(K, R, D)
    batched = torch.cholesky_solve(torch.cholesky_solve(sums, P._A).mT, P._S).mT
    assert float((P(sums) - batched).abs().max() / batched.abs().max()) < 1e-6
    peak, _ = measure_peak(lambda: solve_operators(sums, P, basis, 0.005))
    assert 0 < peak <= 4 * (4 * part + 2 * D**2)
    assert peak < sums.nbytes / 4


@pytest.mark.parametrize("shift", [0.001, 0.005, 0.05])
def test_typical_shift_is_the_requested_one(
    model: FrozenModel, basis: Basis, encoded: list[Encoded], membership: Membership, shift: float
) -> None:
    """sqrt(mean_{k,t} ||B(z_t)^T a_k||^2 / mean_t ||z_t||^2) = shift."""
    operators = fit(model, basis, encoded, membership, shift=shift)
    z = torch.cat([s.z[0] for s in seen_rows(model, encoded)])
    moved = torch.einsum("tr,krd->ktd", basis(z), operators.a).pow(2).sum(-1).mean()
    assert float((moved / z.pow(2).sum(-1).mean()).sqrt()) == pytest.approx(shift, rel=1e-3)
    assert operators.shift == shift


@pytest.mark.parametrize("gain", [2.0, 0.125])
def test_multiplying_all_losses_changes_nothing(
    model: FrozenModel, basis: Basis, encoded: list[Encoded], membership: Membership, gain: float
) -> None:
    """L_i -> c L_i for all i leaves every a_k as it was: c_i takes the gain out, damping is
    relative, the shift is fixed.
    """
    plain, scaled = (
        fit(model, basis, encoded, membership),
        fit(model, basis, encoded, membership, gain=gain),
    )
    torch.testing.assert_close(scaled.a, plain.a, rtol=1e-3, atol=1e-4 * float(plain.a.abs().max()))


def test_a_basis_of_no_rows_is_an_error(model: FrozenModel) -> None:
    """No directions come from nothing."""
    with pytest.raises(ValueError, match="at least one conversation"):
        fit_basis(model, [], 4, BUDGET)


def steered_loss(model: FrozenModel, basis: Basis, a: Tensor, batch: Batch) -> Tensor:
    """L_i of the steered forward pass, z~_t = z_t + B(z_t)^T a before block `layer`, written
    without the library's hooks.
    """

    def steer(
        _: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return (args[0] + basis(args[0]) @ a, *args[1:]), kwargs

    handle = find_decoder_blocks(model.model)[model.layer].register_forward_pre_hook(
        steer, with_kwargs=True
    )
    try:
        with torch.no_grad():
            logits = model.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits.double()
    finally:
        handle.remove()
    labels = torch.where(batch.answer, batch.input_ids, -100)
    return torch.stack(
        [
            cross_entropy(o[:-1], y[1:], ignore_index=-100)
            for o, y in zip(logits, labels, strict=True)
        ]
    ).float()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_steering_with_a_rows_own_operator_makes_that_row_likelier(
    tiny_model: Callable[[str], PreTrainedModel], encoded: list[Encoded], family: str
) -> None:
    """Loss(o_i) - Loss(o~_{i,i}) -> -<G_i, a_i> > 0 as shift -> 0: positive y means the answer
    became likelier.
    """
    model = FrozenModel(tiny_model(family), LAYER)
    basis = fit_basis(model, encoded, R, BUDGET)
    own = Membership(np.arange(len(encoded))[:, None], len(encoded))
    (batch,) = make_batches(encoded, 100_000)
    G = compute_row_gradients(basis, model.compute_state_gradients(batch))
    errors = []
    for shift in (0.03, 0.01, 0.003):
        operators = fit(model, basis, encoded, own, shift=shift)
        first_order = -(G * operators.a[batch.rows]).sum(dim=(1, 2))
        assert (first_order > 0).all()
        gained = []
        for row in batch.rows.tolist():
            (alone,) = make_batches([encoded[row]], 1)
            before = steered_loss(model, basis, torch.zeros(R, 32), alone)
            gained.append(float(before - steered_loss(model, basis, operators.a[row], alone)))
        errors.append(float((torch.tensor(gained) - first_order).norm() / first_order.norm()))
    assert errors[2] < 0.05
    assert errors[2] < errors[0]
    assert min(gained) > 0
