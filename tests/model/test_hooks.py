"""Hooks last for a `with`, and give what they say; passes that use them are in test_frozen.py."""

import pytest
import torch
from torch import Tensor, nn

from poisonwatch.model.encoding import Answers
from poisonwatch.model.hooks import Stop, cut_at, pick, skip_blocks, stop_at_head

ANSWERS = Answers(torch.tensor([1, 5]), (1, 1))


class Block(nn.Module):
    """Adds one."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + 1


def test_states_of_answers_are_picked_row_by_row() -> None:
    """`at` counts over b x T tokens."""
    states = torch.arange(24.0).view(2, 4, 3)
    assert torch.equal(pick(states, ANSWERS), torch.stack([states[0, 1], states[1, 1]]))


@pytest.mark.parametrize("named", [False, True])
def test_a_cut_is_a_leaf_and_ends(named: bool) -> None:
    """z requires a gradient inside of the `with`, by place or by name; nothing stays behind."""
    block, x = Block(), torch.zeros(1, 2, 3)
    with cut_at(block, None, stop=False) as seen:
        y = block(hidden_states=x) if named else block(x)
    assert y.requires_grad
    assert seen[0].is_leaf
    with cut_at(block, torch.ones(1, 2, 3), stop=False):
        assert torch.equal(block(x), torch.full((1, 2, 3), 2.0))
    with cut_at(block, None, stop=True), pytest.raises(Stop):
        block(x)
    assert not block(x).requires_grad


def test_a_head_that_is_stopped_at_does_not_run() -> None:
    """The states of the answers are seen, the head is not run; then it is itself again."""
    head, states = nn.Linear(3, 5), torch.randn(2, 4, 3)
    with stop_at_head(head, ANSWERS) as seen, pytest.raises(Stop):
        head(states)
    assert torch.equal(seen[0], pick(states, ANSWERS))
    assert head(states).shape == (2, 4, 5)


def test_skipped_blocks_hand_on_their_input() -> None:
    """With what they returned beside the states, where they did."""
    block, x = Block(), torch.zeros(1, 2, 3)
    with skip_blocks([block], None):
        assert block(x) is x
    with skip_blocks([block], ("more",)):
        assert block(x) == (x, "more")
    assert torch.equal(block(x), x + 1)
