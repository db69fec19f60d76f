"""An order of rows that depends on ids and seed alone."""

import numpy as np

from poisonwatch.stride.sampling import draw_order

R, LAYER, BUDGET, N, K, DAMPING = 6, 1, 400, 24, 8, 0.1


IDS = [f"row-{i}" for i in range(N)]


def test_drawn_order_follows_the_row_wherever_it_stands() -> None:
    """ids[order(ids)] is the same list for every order of the ids; seeds differ."""
    shuffled = [IDS[i] for i in np.random.default_rng(0).permutation(N)]
    assert [IDS[i] for i in draw_order(IDS, 3)] == [shuffled[i] for i in draw_order(shuffled, 3)]
    assert sorted(draw_order(IDS, 3)) == list(range(N))
    assert (draw_order(IDS, 3) != draw_order(IDS, 4)).any()
