"""The three losses of steered rows, against loops and in their limits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from poisonwatch.stride.losses import fidelity, linearity, log_likelihood, stability

Models = Callable[[str], PreTrainedModel]


R, D = 5, 32


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_log_likelihood_is_the_negative_mean_cross_entropy() -> None:
    """1/n sum_t log softmax(o_t)[y_t] = -cross_entropy(o, y), for any leading shape."""
    o, targets = draw(2, 3, 7, 11), torch.tensor([0, 3, 10, 5, 5, 1, 2])
    found = log_likelihood(o.log_softmax(-1), targets)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], -cross_entropy(o[i, j], targets))
    torch.testing.assert_close(fidelity(o[0].log_softmax(-1), targets), -found[0].mean())


def test_fidelity_of_certain_answers_is_zero() -> None:
    """log softmax(o~)[y] -> 0 as the answer's logit -> infinity."""
    targets = torch.tensor([1, 0])
    o = torch.zeros(1, 2, 3).scatter(-1, targets[None, :, None], 1e3)
    assert fidelity(o.log_softmax(-1), targets) == 0


def test_stability_is_the_mean_divergence_from_the_frozen_model() -> None:
    """1/|pairs| sum 1/n sum_t sum_v p_v (log p_v - log p~_v), written out."""
    o, moved = draw(4, 9), draw(3, 4, 9, seed=1)
    p = o.softmax(-1)
    naive = (
        sum(
            float((p[t] * (p[t] / moved[k, t].softmax(-1)).log()).sum())
            for k in range(3)
            for t in range(4)
        )
        / 12
    )
    assert float(stability(o.log_softmax(-1), moved.log_softmax(-1))) == pytest.approx(naive)


def test_stability_of_an_unmoved_model_is_zero_and_flat() -> None:
    """KL = 0 with gradient 0 at a = 0, and grows with the square of the move: KL(h v) / h^2 has a
    limit.
    """
    o, v = draw(4, 9), draw(2, 4, 9, seed=1)
    h = torch.zeros((), dtype=torch.float64, requires_grad=True)
    zero = stability(o.log_softmax(-1), (o + h * v).log_softmax(-1))
    (slope,) = torch.autograd.grad(zero, h)
    assert abs(float(zero.detach())) < 1e-15
    assert abs(float(slope)) < 1e-15
    curvature = [
        float(stability(o.log_softmax(-1), (o + s * v).log_softmax(-1))) / s**2
        for s in (1e-2, 1e-3)
    ]
    assert curvature[0] == pytest.approx(curvature[1], rel=0.02)
    assert curvature[1] > 0


def test_stability_without_pairs_is_zero() -> None:
    """Where every subset holds the row there is nothing to keep still."""
    assert stability(draw(4, 9).log_softmax(-1), torch.empty(0, 4, 9, dtype=torch.float64)) == 0


def test_linearity_of_effects_that_rows_explain_vanishes_with_the_ridge() -> None:
    """y = M~ w: the loss -> 0 as gamma -> 0."""
    M = draw(8, 3)
    y = M @ draw(3, seed=1)
    losses = [float(linearity(y, M, gamma)) for gamma in (1.0, 1e-2, 1e-4, 1e-8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-12 * float(y.pow(2).sum())


def test_linearity_of_effects_that_no_rows_explain_is_their_square() -> None:
    """M~^T y = 0, or gamma -> infinity: the loss is ||y||^2."""
    M, y = draw(8, 3), draw(8, seed=1)
    orthogonal = y - M @ torch.linalg.lstsq(M, y[:, None]).solution[:, 0]
    assert float(linearity(orthogonal, M, 1e-3)) == pytest.approx(float(orthogonal.pow(2).sum()))
    assert float(linearity(y, M, 1e12)) == pytest.approx(float(y.pow(2).sum()))


@pytest.mark.parametrize("p", [3, 8, 20])
def test_linearity_is_the_residual_of_kernel_ridge(p: int) -> None:
    """|| gamma (M~ M~^T + gamma I)^-1 y ||^2, the same by the push-through identity, for fewer and
    for more columns than subsets.
    """
    M, y, gamma = draw(8, p), draw(8, seed=1), 0.7
    residual = gamma * torch.linalg.solve(M @ M.T + gamma * torch.eye(8, dtype=torch.float64), y)
    assert float(linearity(y, M, gamma)) == pytest.approx(float(residual.pow(2).sum()))
