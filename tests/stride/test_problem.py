"""What any fit starts from."""

from pathlib import Path

import numpy as np
from attributions import ROWS, STRIDE

from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.packed_examples import PackedExamples
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


def test_rows_are_encoded_when_they_are_asked_for(tiny_pretrained: Pretrained) -> None:
    """ids and encoded rows stand as the examples do; settings are those of the model and of n."""
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE)
    assert problem.n == problem.settings.K == len(ROWS)
    assert problem.ids == tuple(row.id for row in ROWS)
    expected = problem.encoder.encode(ROWS[7].messages)
    some = problem.encode(np.array([7, 3]))
    assert problem.get_ids(np.array([7, 3])) == [ROWS[7].id, ROWS[3].id]
    for found in (problem.encode_all()[7], some[0]):
        np.testing.assert_array_equal(found.input_ids, expected.input_ids)
    assert problem.trusted is None
    assert not problem.store.writable


def test_records_lie_beside_the_checkpoints_and_go_with_them(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """Without checkpoints, in a folder of their own."""
    store = CheckpointStore(tmp_path / "work")
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE, store=store)
    records = problem.open_records()
    assert records.folder == tmp_path / "work" / "records"
    assert records.folder.is_dir()
    store.clear()
    assert not records.folder.exists()
    apart = prepare_problem(tiny_pretrained, ROWS, STRIDE).open_records()
    assert apart.folder.is_dir()
    assert tmp_path not in apart.folder.parents


def test_packed_rows_have_the_ids_of_their_examples(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """Wherever the rows lie."""
    rows = PackedExamples.write(tmp_path / "rows.arrow", ROWS)
    problem = prepare_problem(tiny_pretrained, rows, STRIDE)
    plain = prepare_problem(tiny_pretrained, ROWS, STRIDE)
    assert problem.ids == plain.ids
    np.testing.assert_array_equal(problem.sample, plain.sample)


def test_a_problem_of_some_rows_is_that_of_an_audit_of_them(tiny_pretrained: Pretrained) -> None:
    """The same order, sample and trusted rows, numbered anew; settings are resolved for fewer."""
    kept = np.setdiff1d(np.arange(len(ROWS)), [0, 5, 30])
    trusted = np.arange(28, 36)
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE, trusted=trusted)
    found = problem.select(kept)
    alone = prepare_problem(
        tiny_pretrained, [ROWS[i] for i in kept], STRIDE, trusted=np.array([26, 27, *range(28, 33)])
    )
    assert found.ids == alone.ids
    assert [row.id for row in found.rows] == list(alone.ids)
    assert found.settings == alone.settings
    np.testing.assert_array_equal(found.order, alone.order)
    np.testing.assert_array_equal(found.sample, alone.sample)
    np.testing.assert_array_equal(found.trusted, alone.trusted)
    assert problem.select(np.arange(len(ROWS))) is problem
