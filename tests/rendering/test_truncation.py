"""Which tokens are kept of a conversation that is too long."""

import numpy as np

from poisonwatch.rendering.truncation import choose_kept


def test_longest_prompt_loses_its_middle_first() -> None:
    """10 + 60 of prompt and 10 of answer in 50 tokens: the short prompt and the answer are whole."""
    answer = np.array([False] * 70 + [True] * 10)
    kept = choose_kept(answer, [slice(0, 10), slice(10, 70)], 50)
    assert kept.tolist() == [*range(25), *range(55, 80)]


def test_prompt_keeps_half_of_the_window_and_the_answer_loses_its_end() -> None:
    """40 of prompt and 40 of answer in 20: the prompt's ends, and the answer's beginning."""
    answer = np.array([False] * 40 + [True] * 40)
    kept = choose_kept(answer, [slice(0, 40)], 20)
    assert kept.tolist() == [*range(5), *range(35, 40), *range(40, 50)]


def test_window_moves_to_the_first_answer() -> None:
    """What stands before it cannot be cut, and fills the window: half of it is kept."""
    answer = np.array([False] * 100 + [True] * 3)
    assert choose_kept(answer, [], 16).tolist() == [*range(92, 103)]
