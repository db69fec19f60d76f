"""What any fit starts from."""

import numpy as np
from attributions import ROWS, STRIDE

from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.problem import prepare_problem
from poisonwatch.stride.sampling import draw_order


def test_the_sample_is_the_first_of_the_drawn_order(tiny_pretrained: Pretrained) -> None:
    """b of all rows, or of the ordinary ones."""
    ids = [row.id for row in ROWS]
    order = draw_order(ids, 3)
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE, seed=3)
    np.testing.assert_array_equal(problem.order, order)
    np.testing.assert_array_equal(problem.sample, order[: STRIDE.background])
    ordinary = np.arange(5)
    few = prepare_problem(tiny_pretrained, ROWS, STRIDE, seed=3, ordinary=ordinary)
    assert few.sample.tolist() == [i for i in order if i < 5]


def test_rows_are_encoded_in_their_order(tiny_pretrained: Pretrained) -> None:
    """ids and encoded rows stand as the examples do; settings are those of the model and of n."""
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE)
    assert problem.n == problem.settings.K == len(ROWS)
    assert problem.ids == tuple(row.id for row in ROWS)
    expected = problem.encoder.encode(ROWS[7].messages)
    for found in (problem.encoded[7], *problem.get_encoded(np.array([7]))):
        np.testing.assert_array_equal(found.input_ids, expected.input_ids)
    assert problem.trusted is None
    assert not problem.store.writable
