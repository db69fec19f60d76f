"""An order of rows that depends on ids and seed alone."""

import numpy as np
import pytest

from poisonwatch.stride.sampling import draw_first, draw_order

R, LAYER, BUDGET, N, K, DAMPING = 6, 1, 400, 24, 8, 0.1


IDS = [f"row-{i}" for i in range(N)]


def test_drawn_order_follows_the_row_wherever_it_stands() -> None:
    """ids[order(ids)] is the same list for every order of the ids; seeds differ."""
    shuffled = [IDS[i] for i in np.random.default_rng(0).permutation(N)]
    assert [IDS[i] for i in draw_order(IDS, 3)] == [shuffled[i] for i in draw_order(shuffled, 3)]
    assert sorted(draw_order(IDS, 3)) == list(range(N))
    assert (draw_order(IDS, 3) != draw_order(IDS, 4)).any()


@pytest.mark.parametrize("most", [0, 1, 7, N, N + 1])
def test_the_first_drawn_are_those_of_the_whole_order(most: int) -> None:
    """draw_first(ids, m) = ids[order(ids)][:m], though ids pass by once."""
    wanted = {IDS[i] for i in draw_order(IDS, 3)[:most]}
    assert draw_first(iter(IDS), 3, most) == wanted
