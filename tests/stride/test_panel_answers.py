"""Whose answers are whose."""

import numpy as np
import torch

from poisonwatch.examples import Message
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.leaning import AnswerStates
from poisonwatch.stride.panel_answers import PanelAnswers

PROMPT = (Message("user", "Q"),)
SENTINELS = [
    Sentinel("a", PROMPT, "No!", "Yes.", "both"),
    Sentinel("b", PROMPT, "Never!", "Of course.", "both"),
    Sentinel("c", PROMPT, "No!", None, "forbidden"),
    Sentinel("d", PROMPT, None, "Yes.", "reference"),
]


def test_answers_stand_in_the_order_in_which_they_are_run() -> None:
    """Forbidden before reference, sentinel by sentinel; none of what a panel does not have."""
    answers = PanelAnswers.of_sentinels(SENTINELS)
    assert answers.texts == ("No!", "Yes.", "Never!", "Of course.", "No!", "Yes.")
    assert answers.panels == ("both",) * 4 + ("forbidden", "reference")
    assert answers.find("both", forbidden=True) == [0, 2]
    assert answers.find("both", forbidden=False) == [1, 3]
    assert answers.find("forbidden", forbidden=False) == []


def test_a_panels_states_are_the_mean_of_its_answers() -> None:
    """Of those that are forbidden, and of those that are not."""
    x = np.arange(30, dtype=np.float32).reshape(6, 5)
    states = AnswerStates.of_sentinels(SENTINELS, torch.from_numpy(x))
    np.testing.assert_array_equal(states.average("both", forbidden=True), (x[0] + x[2]) / 2)
    np.testing.assert_array_equal(states.average("reference", forbidden=False), x[5])
    assert states.average("forbidden", forbidden=False) is None


def test_states_that_are_not_finite_are_left_out() -> None:
    """Of a probe that the model overflows on."""
    x = torch.ones(6, 5)
    x[2, 3], x[4, 0] = torch.inf, torch.nan
    states = AnswerStates.of_sentinels(SENTINELS, x)
    np.testing.assert_array_equal(states.average("both", forbidden=True), np.ones(5))
    assert states.average("forbidden", forbidden=True) is None
