"""A row's score beside the trusted rows', in words."""

import numpy as np
import pytest

from poisonwatch.reports.standing import describe_push


@pytest.mark.parametrize(
    ("score", "trusted", "words"),
    [
        (30.0, [4.1, -1.0], "Among 2 trusted rows the strongest pushes 4.1; this one 30.0."),
        (30.0, [4.1] * 1369, "Among 1,369 trusted rows"),
        (2.0, [1.0], "Among 1 trusted row the strongest pushes 1.0; this one 2.0."),
        (2.0, [9.0, 1.0], "Of 2 trusted rows 1 pushes as much as this one (2.0), the strongest"),
        (2.0, [9.0, 2.0], "Of 2 trusted rows 2 push as much as this one (2.0), the strongest 9.0."),
        (2.0, [], "This one pushes 2.0; no trusted row's push is known."),
    ],
)
def test_a_score_is_told_beside_the_trusted_rows(
    score: float, trusted: list[float], words: str
) -> None:
    """Only what none of them reaches stands alone."""
    assert describe_push(score, np.array(trusted)).startswith(words)
