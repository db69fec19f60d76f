"""Which tokens of a conversation are kept where it is too long."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def choose_kept(
    answer: NDArray[np.bool_], prompts: Sequence[slice], max_tokens: int
) -> NDArray[np.intp]:
    """The places of the tokens, at most `max_tokens`, that a conversation of more is cut to.

    `answer` (T,) says which tokens the loss is on, `prompts` where the prompt's texts stand. These
    lose their middle, the longest first; then the last answer loses its end. A conversation that
    is too long even before its first answer loses its beginning.
    """
    lengths = [prompt.stop - prompt.start for prompt in prompts]
    total = sum(lengths)
    # Prompts never shrink below half of the window: an answer says little without what it answers.
    # Where that is too much, the window cuts the answer's end.
    room = max(total - (len(answer) - max_tokens), min(total, max_tokens // 2))
    most = _find_most(lengths, room)
    kept = np.ones(len(answer), dtype=np.bool_)
    for prompt, length in zip(prompts, lengths, strict=True):
        if length > most:
            head = (most + 1) // 2
            kept[prompt.start + head : prompt.stop - (most - head)] = False
    places = np.flatnonzero(kept)
    answered = np.flatnonzero(answer[places])
    start = 0
    # Turns upon turns before the first answer: without its tokens there would be no loss.
    if len(answered) and answered[0] >= max_tokens:
        start = int(answered[0]) - max_tokens // 2
    return places[start : start + max_tokens]


def _find_most(lengths: Sequence[int], room: int) -> int:
    """How many tokens each text may have at most, for all to have room together."""
    # A question of a line is kept whole beside pages of tools.
    for place, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - place)
        if length > share:
            return share
        room -= length
    return max(lengths, default=0)
