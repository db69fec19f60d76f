"""Adam on rows, against PyTorch's."""

import torch

from poisonwatch.stride.adam import Adam


def test_adam_equals_torchs_where_every_row_is_touched() -> None:
    """The same values as torch.optim.Adam after each of 20 steps, in units of `unit`."""
    rng = torch.Generator().manual_seed(0)
    ours = Adam(torch.zeros(3, 4, dtype=torch.float64), unit=2.0)
    theirs = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.02, eps=1e-12)
    for _ in range(20):
        theirs.grad = torch.randn(3, 4, dtype=torch.float64, generator=rng)
        optimiser.step()
        ours.update(torch.arange(3), theirs.grad, lr=0.01)
        torch.testing.assert_close(ours.value, theirs.detach(), rtol=1e-6, atol=1e-9)


def test_adam_moves_only_what_a_step_touches() -> None:
    """A row touched in some steps ends where it would have ended alone, with those steps only."""
    rng = torch.Generator().manual_seed(0)
    together, alone = Adam(torch.zeros(2, 4), 1.0), Adam(torch.zeros(1, 4), 1.0)
    for step in range(10):
        gradient = torch.randn(2, 4, generator=rng)
        if step % 3:
            together.update(torch.tensor([0]), gradient[:1], 0.01)
        else:
            together.update(torch.tensor([1, 0]), gradient.flip(0), 0.01)
            alone.update(torch.tensor([0]), gradient[1:], 0.01)
    assert torch.equal(together.value[1:], alone.value)
    assert together.steps.tolist() == [10, 4]
