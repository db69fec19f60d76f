"""A row's score beside those of the trusted rows, in words."""

import numpy as np

from poisonwatch.arrays import Array


def describe_push(score: float, trusted: Array) -> str:
    """One sentence: how strongly a row pushes its panel, beside the trusted rows, whose scores
    (n_ref,) these are. Scores are in robust standard deviations.
    """
    if not len(trusted):
        return f"This one pushes {score:.1f}; no trusted row's push is known."
    rows = "1 trusted row" if len(trusted) == 1 else f"{len(trusted):,} trusted rows"
    strongest = f"{np.max(trusted):.1f}"
    reached = int((trusted >= score).sum())
    if not reached:
        return f"Among {rows} the strongest pushes {strongest}; this one {score:.1f}."
    push = "pushes" if reached == 1 else "push"
    return (
        f"Of {rows} {reached:,} {push} as much as this one ({score:.1f}), "
        f"the strongest {strongest}."
    )
