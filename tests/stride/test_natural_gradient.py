"""The streaming fit against naive loops: batches, the sample's own gradients, views."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel, StateGradients
from poisonwatch.progress import silent
from poisonwatch.recovery.membership import Membership, draw_random_membership
from poisonwatch.stride.background import Background
from poisonwatch.stride.natural_gradient import Geometry, SubsetSums, sum_subsets
from poisonwatch.stride.operators import (
    Basis,
    Moments,
    Preconditioner,
    compute_gradients,
    compute_row_gradients,
    fit_basis,
    solve_operators,
)
from poisonwatch.stride.row_statistics import measure_row_statistics
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.similarity import allocate_views, survey_views

R, LAYER, BUDGET, N, K, DAMPING = 6, 1, 400, 24, 8, 0.1
IDS = [f"row-{i}" for i in range(N)]


@pytest.fixture(scope="module")
def membership() -> Membership:
    return draw_random_membership(IDS, K, 3)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return draw_order(IDS, 0)[:10]


@pytest.fixture(scope="module")
def basis(model: FrozenModel, encoded: list[Encoded], sample: np.ndarray) -> Basis:
    return fit_basis(model, [encoded[i] for i in sample], R, BUDGET)


@pytest.fixture(scope="module")
def geometry(
    model: FrozenModel, encoded: list[Encoded], sample: np.ndarray, basis: Basis
) -> Geometry:
    return geometry_of(model, encoded, sample, basis)


@pytest.fixture(scope="module")
def whole(
    model: FrozenModel, encoded: list[Encoded], membership: Membership, geometry: Geometry
) -> SubsetSums:
    return sum_subsets(model, encoded, membership, geometry, BUDGET)


@pytest.fixture(scope="module")
def alone(model: FrozenModel, encoded: list[Encoded]) -> list[StateGradients]:
    """Every row by itself, in order."""
    return [model.compute_state_gradients(next(make_batches([row], 1))) for row in encoded]


def geometry_of(
    model: FrozenModel,
    encoded: list[Encoded],
    sample: np.ndarray,
    basis: Basis,
    budget: int = BUDGET,
    also: np.ndarray | None = None,
) -> Geometry:
    """With the sample as ordinary conversations; the rows `also` are known, too, and tell A and S
    with it.
    """
    known = sample if also is None else np.concatenate([also, sample])
    some = [encoded[i] for i in known]
    (seen,) = measure_row_statistics(model, some, [basis], budget, label="sample").splits
    return Geometry.from_moments(
        basis,
        seen.moments,
        DAMPING,
        known=known,
        G=seen.G,
        sample=sample,
        signs=np.ones(len(sample)),
    )


def same(found: SubsetSums, expected: SubsetSums, rtol: float = 1e-3) -> None:
    torch.testing.assert_close(
        found.G, expected.G, rtol=rtol, atol=1e-4 * float(expected.G.abs().max())
    )
    np.testing.assert_allclose(found.spread, expected.spread, rtol=rtol)
    np.testing.assert_allclose(
        found.centre, expected.centre, rtol=rtol, atol=1e-4 * np.abs(expected.centre).max()
    )


def test_the_sample_alone_sets_the_geometry(
    geometry: Geometry, alone: list[StateGradients], sample: np.ndarray, basis: Basis
) -> None:
    """A = mean B B^T, mean ||z||^2 and G_b over the sampled rows, in the sample's order."""
    B, z = (
        torch.cat([basis(alone[i].z[0]) for i in sample]),
        torch.cat([alone[i].z[0] for i in sample]),
    )
    G = torch.cat([compute_row_gradients(basis, alone[i]) for i in sample])
    torch.testing.assert_close(geometry.preconditioner.A, B.T @ B / len(B), rtol=1e-3, atol=1e-4)
    assert geometry.preconditioner.mean_power == pytest.approx(
        float(z.pow(2).sum(dim=1).mean()), rel=1e-4
    )
    torch.testing.assert_close(geometry.G, G, rtol=1e-3, atol=1e-4 * float(G.abs().max()))


def test_sums_equal_a_loop_over_rows_and_subsets(
    whole: SubsetSums,
    alone: list[StateGradients],
    membership: Membership,
    geometry: Geometry,
    basis: Basis,
) -> None:
    """G_k = sum_{i in A_k} G_i / spread_i, spread_i = std_{b != i} <P G_b / ||G_b||, G_i>, centre_i
    in units of it.
    """
    G = torch.cat([compute_row_gradients(basis, seen) for seen in alone])
    probes = {int(b): geometry.preconditioner(G[b] / G[b].norm()) for b in geometry.known}
    expected = SubsetSums(torch.zeros(K, R, 32), np.zeros(N), np.zeros(N))
    for i in range(N):
        pushes = np.array(
            [float((probe * G[i]).double().sum()) for b, probe in probes.items() if b != i]
        )
        expected.spread[i], expected.centre[i] = pushes.std(), pushes.mean() / pushes.std()
        for k in membership.subsets[i]:
            expected.G[k] += G[i] / pushes.std()
    same(whole, expected)


@pytest.mark.parametrize("budget", [1, 10_000])
def test_batches_change_nothing(
    model: FrozenModel,
    encoded: list[Encoded],
    membership: Membership,
    sample: np.ndarray,
    basis: Basis,
    whole: SubsetSums,
    budget: int,
) -> None:
    """One row at a time, or all at once: the same geometry and the same sums."""
    same(
        sum_subsets(
            model, encoded, membership, geometry_of(model, encoded, sample, basis, budget), budget
        ),
        whole,
        rtol=1e-2,
    )


def test_a_sum_does_not_depend_on_the_number_of_subsets(
    model: FrozenModel,
    encoded: list[Encoded],
    geometry: Geometry,
    whole: SubsetSums,
    membership: Membership,
) -> None:
    """With every row alone G_i^ = c_i G_i; M of that gives the sums of any other subsets, with the
    same spreads.
    """
    single = sum_subsets(model, encoded, Membership(np.arange(N)[:, None], N), geometry, BUDGET)
    M = torch.from_numpy(membership.matrix().toarray()).float()
    same(SubsetSums(torch.einsum("ki,ird->krd", M, single.G), single.centre, single.spread), whole)


def test_the_gradients_of_the_sample_are_not_made_again(
    model: FrozenModel,
    encoded: list[Encoded],
    membership: Membership,
    geometry: Geometry,
    whole: SubsetSums,
    sample: np.ndarray,
) -> None:
    """The pass runs over n - b rows; with the sample's G set to zero, its rows have spread infinity
    and add nothing.
    """
    passed = []

    def count(
        items: Iterable, description: str, total: int, advance: Callable = lambda _: 1
    ) -> Iterator:
        for item in items:
            passed.append(advance(item))
            yield item

    silenced = replace(geometry, G=torch.zeros_like(geometry.G))
    without = sum_subsets(model, encoded, membership, silenced, BUDGET, progress=count)
    assert sum(passed) == N - len(sample)
    rest = np.setdiff1d(np.arange(N), sample)
    single = sum_subsets(model, encoded, Membership(np.arange(N)[:, None], N), geometry, BUDGET)
    M = torch.from_numpy(membership.matrix().toarray()[:, rest]).float()
    others = torch.einsum("ki,ird->krd", M, single.G[rest])
    torch.testing.assert_close(without.G, others, rtol=1e-3, atol=1e-5 * float(others.abs().max()))
    assert np.isinf(without.spread[sample]).all()
    assert (without.centre[sample] == 0).all()
    np.testing.assert_allclose(without.spread[rest], whole.spread[rest])


@pytest.mark.parametrize("b", [1, 2, 3, N])
def test_any_number_of_sampled_rows_gives_finite_sums(
    model: FrozenModel, encoded: list[Encoded], membership: Membership, basis: Basis, b: int
) -> None:
    """From one row in the sample to all rows in it: c_i > 0, finite."""
    sums = sum_subsets(
        model,
        encoded,
        membership,
        geometry_of(model, encoded, draw_order(IDS, 0)[:b], basis),
        BUDGET,
    )
    assert torch.isfinite(sums.G).all()
    assert ((sums.spread > 0) & np.isfinite(sums.spread)).all()


def test_rows_in_another_order_give_the_same_operators(
    model: FrozenModel,
    encoded: list[Encoded],
    membership: Membership,
    sample: np.ndarray,
    basis: Basis,
    whole: SubsetSums,
) -> None:
    """a_k(P rows, M P) = a_k(rows, M)."""
    order = np.random.default_rng(7).permutation(N)
    place = np.argsort(order)  # of each row after the shuffle
    shuffled = [encoded[i] for i in order]
    geometry = geometry_of(model, shuffled, place[sample], basis)
    sums = sum_subsets(model, shuffled, Membership(membership.subsets[order], K), geometry, BUDGET)
    same(SubsetSums(sums.G, sums.centre[place], sums.spread[place]), whole)


@pytest.mark.parametrize("gain", [4.0, 0.25])
def test_multiplying_all_losses_changes_no_operator(
    model: FrozenModel,
    geometry: Geometry,
    alone: list[StateGradients],
    membership: Membership,
    basis: Basis,
    gain: float,
) -> None:
    """L_i -> c L_i: S -> c^2 S, G_i -> c G_i, spread_i -> spread_i / c, so that a_k stays, for a
    given shift.
    """
    G = torch.cat([compute_row_gradients(basis, seen) for seen in alone])
    M = torch.from_numpy(membership.matrix().toarray()).float()

    def operators(c: float) -> torch.Tensor:
        moments = Moments.zeros(R, 32)
        for seen in alone:
            moments += Moments.of_batch(
                basis, StateGradients(seen.z, c * seen.g, seen.mask, c * seen.loss)
            )
        P = Preconditioner(moments, DAMPING)
        spread = Background.from_gradients(
            c * G[geometry.known], P, np.ones(len(geometry.known))
        ).measure(c * G)[1]
        return solve_operators(
            torch.einsum("ki,ird->krd", M, c * G / spread[:, None, None].float()), P, basis, 0.005
        ).a

    torch.testing.assert_close(
        operators(gain), operators(1.0), rtol=1e-3, atol=1e-4 * float(operators(1.0).abs().max())
    )


def test_views_filled_on_the_way_equal_those_of_a_survey(
    model: FrozenModel,
    encoded: list[Encoded],
    membership: Membership,
    sample: np.ndarray,
    basis: Basis,
) -> None:
    """The sample's views come with its statistics, the others with the sums; together those of a
    pass below the split only.
    """
    views = allocate_views(N, basis)
    some = [encoded[i] for i in sample]
    (seen,) = measure_row_statistics(model, some, [basis], BUDGET, label="sample").splits
    views[sample] = seen.views
    geometry = Geometry.from_moments(
        basis,
        seen.moments,
        DAMPING,
        known=sample,
        G=seen.G,
        sample=sample,
        signs=np.ones(len(sample)),
    )
    sum_subsets(model, encoded, membership, geometry, BUDGET, views=views)
    np.testing.assert_allclose(
        views, survey_views(model, encoded, basis, BUDGET), rtol=1e-3, atol=1e-5
    )


def test_known_rows_beyond_the_sample_are_no_ordinary_conversations(
    model: FrozenModel,
    encoded: list[Encoded],
    membership: Membership,
    sample: np.ndarray,
    basis: Basis,
    whole: SubsetSums,
) -> None:
    """Their gradients are not made again, and what any row does to them counts in no spread."""
    also = np.setdiff1d(np.arange(N), sample)[:6]
    known = geometry_of(model, encoded, sample, basis, also=also)
    assert (known.own == [*[-1] * 6, *range(len(sample))]).all()
    same_factors = Geometry.from_moments(
        basis,
        geometry_of(model, encoded, sample, basis).preconditioner.moments,
        DAMPING,
        known=known.known,
        G=known.G,
        sample=sample,
        signs=np.ones(len(sample)),
    )
    same(sum_subsets(model, encoded, membership, same_factors, BUDGET), whole)


def test_gradients_equal_those_of_rows_alone(
    model: FrozenModel, encoded: list[Encoded], basis: Basis, alone: list[StateGradients]
) -> None:
    """G (m, r, D) in the order asked, padded or not."""
    G = torch.cat([compute_row_gradients(basis, seen) for seen in alone])
    torch.testing.assert_close(
        compute_gradients(model, basis, encoded, BUDGET, "rows", silent),
        G,
        rtol=1e-3,
        atol=1e-4 * float(G.abs().max()),
    )
