"""The background against a naive loop over rows and ordinary conversations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from poisonwatch.stride.background import Background
from poisonwatch.stride.operators import Moments, Preconditioner

R, D, B = 5, 7, 9


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def preconditioner() -> Preconditioner:
    b, g = drawn(1, 100, R), drawn(2, 100, D)
    return Preconditioner(Moments(b.T @ b, g.T @ g, 100.0, 100), 0.1)


@pytest.fixture(scope="module")
def sample() -> Tensor:
    """G (B, R, D) of the ordinary conversations, of lengths from 1e-3 to 1e3."""
    return drawn(3, B, R, D) * torch.logspace(-3, 3, B)[:, None, None]


def from_raised(G: Tensor, preconditioner: Preconditioner) -> Background:
    """Of conversations whose answers training raises."""
    return Background.from_gradients(G, preconditioner, np.ones(len(G)))


def naive_pushes(preconditioner: Preconditioner, sample: Tensor, G: Tensor) -> np.ndarray:
    """p_ib = <P G_b / ||G_b||, G_i>, one pair at a time."""
    return np.array(
        [
            [float((preconditioner(p / p.norm()).double() * row.double()).sum()) for p in sample]
            for row in G
        ]
    )


def test_centre_and_spread_equal_a_loop_over_conversations(
    preconditioner: Preconditioner, sample: Tensor
) -> None:
    """centre_i = mean_b p_ib and spread_i = std_b p_ib, for rows outside the sample."""
    G = drawn(4, 6, R, D)
    centre, spread = from_raised(sample, preconditioner).measure(G)
    pushes = naive_pushes(preconditioner, sample, G)
    np.testing.assert_allclose(
        centre.numpy(), pushes.mean(axis=1), rtol=1e-4, atol=1e-5 * np.abs(pushes).max()
    )
    np.testing.assert_allclose(spread.numpy(), pushes.std(axis=1), rtol=1e-4)


def test_a_sampled_row_leaves_out_its_push_on_itself(
    preconditioner: Preconditioner, sample: Tensor
) -> None:
    """centre_i and spread_i run over b != i, in whatever order the rows are measured."""
    own = torch.tensor([7, 0, 3, 8])
    centre, spread = from_raised(sample, preconditioner).measure(sample[own], own)
    pushes = naive_pushes(preconditioner, sample, sample[own])
    others = np.array([np.delete(row, i) for row, i in zip(pushes, own.tolist(), strict=True)])
    np.testing.assert_allclose(spread.numpy(), others.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        centre.numpy(), others.mean(axis=1), rtol=1e-3, atol=1e-4 * float(spread.max())
    )


def test_a_row_that_moves_nothing_has_infinite_spread(
    preconditioner: Preconditioner, sample: Tensor
) -> None:
    """G_i = 0: centre_i = 0, spread_i = infinity, so c_i = 1 / spread_i = 0."""
    centre, spread = from_raised(sample, preconditioner).measure(torch.zeros(2, R, D))
    assert (centre == 0).all()
    assert torch.isinf(spread).all()


@pytest.mark.parametrize("scale", [1e-4, 0.5, 1e4])
def test_scaling_a_gradient_scales_its_centre_and_spread(
    preconditioner: Preconditioner, sample: Tensor, scale: float
) -> None:
    """G_i -> c G_i: centre_i -> c centre_i, spread_i -> c spread_i, and c_i G_i stays."""
    background, G = from_raised(sample, preconditioner), drawn(5, 6, R, D)
    centre, spread = background.measure(G)
    scaled_centre, scaled_spread = background.measure(scale * G)
    torch.testing.assert_close(
        scaled_centre, scale * centre, rtol=1e-3, atol=1e-5 * scale * float(spread.max())
    )
    torch.testing.assert_close(scaled_spread, scale * spread, rtol=1e-4, atol=0)


def test_how_long_the_conversations_gradients_are_changes_nothing(
    preconditioner: Preconditioner, sample: Tensor
) -> None:
    """Probes have unit norm before P: G_b -> c_b G_b for c_b > 0 leaves centre and spread."""
    G, lengths = drawn(6, 6, R, D), torch.logspace(2, -2, B)[:, None, None]
    plain, rescaled = (
        from_raised(sample, preconditioner),
        from_raised(lengths * sample, preconditioner),
    )
    torch.testing.assert_close(
        rescaled.probes, plain.probes, rtol=1e-4, atol=1e-5 * float(plain.probes.abs().max())
    )
    torch.testing.assert_close(rescaled.measure(G)[1], plain.measure(G)[1], rtol=1e-4, atol=0)


def test_rows_are_measured_independently_of_each_other(
    preconditioner: Preconditioner, sample: Tensor
) -> None:
    """measure(G)_i = measure(G_i)."""
    background, G = from_raised(sample, preconditioner), drawn(7, 5, R, D)
    centre, spread = background.measure(G)
    alone = [background.measure(row[None]) for row in G]
    torch.testing.assert_close(
        torch.cat([c for c, _ in alone]), centre, rtol=1e-3, atol=1e-5 * float(spread.max())
    )
    torch.testing.assert_close(torch.cat([s for _, s in alone]), spread, rtol=1e-4, atol=0)


def test_a_single_conversation_measures_itself(
    preconditioner: Preconditioner, sample: Tensor
) -> None:
    """b = 1: spread = |p_11| > 0, finite."""
    _, spread = from_raised(sample[:1], preconditioner).measure(sample[:1], torch.tensor([0]))
    assert float(spread) == pytest.approx(
        abs(naive_pushes(preconditioner, sample[:1], sample[:1]).item()), rel=1e-4
    )


def test_a_push_does_not_depend_on_whether_training_lowers_the_conversation(
    sample: Tensor, preconditioner: Preconditioner
) -> None:
    """G_b with the other sign, and -1 among the signs: the same centre and spread."""
    signs = np.where(np.arange(B) % 3 == 0, -1.0, 1.0)
    turned = sample * torch.from_numpy(signs).float()[:, None, None]
    G = drawn(6, 4, R, D)
    found = Background.from_gradients(turned, preconditioner, signs).measure(G)
    for one, other in zip(found, from_raised(sample, preconditioner).measure(G), strict=True):
        torch.testing.assert_close(one, other)
