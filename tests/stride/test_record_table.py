"""Shards put together: every row has its own record, wherever it lies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.arrays import RowIndices
from poisonwatch.stride.record_table import RecordTable
from poisonwatch.stride.records import RowRecords, pack_ids, plan_shards

N, Q, R, D = 17, 3, 4, 5
DRAW = np.random.default_rng(0)


def draw_floats(*shape: int) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


ALL = RowRecords(
    ids=pack_ids(f"{i:064x}" for i in range(N)),
    effects=draw_floats(N, Q),
    centre=draw_floats(N),
    spread=np.abs(draw_floats(N)) + 0.1,
    signs=np.where(np.arange(N) % 4, 1.0, -1.0).astype(np.float32),
    faults=np.zeros(N, dtype=np.uint8),
    views=draw_floats(N, 3 * (R - 1)),
    gradients=draw_floats(N, R * D),
)


def cut(rows: RowIndices, kept: bool = True) -> RowRecords:
    """The records of some rows."""
    assert ALL.gradients is not None
    return RowRecords(
        ids=ALL.ids[rows],
        effects=ALL.effects[rows],
        centre=ALL.centre[rows],
        spread=ALL.spread[rows],
        signs=ALL.signs[rows],
        faults=ALL.faults[rows],
        views=ALL.views[rows],
        gradients=ALL.gradients[rows] if kept else None,
    )


def make_table(seed: int = 0, size: int = 5, kept: bool = True) -> RecordTable:
    order = np.random.default_rng(seed).permutation(N)
    return RecordTable(N, [(rows, cut(rows, kept)) for rows in plan_shards(order, size)])


@settings(max_examples=30)
@given(seed=st.integers(0, 50), size=st.integers(1, N))
def test_columns_do_not_depend_on_how_rows_are_spread_over_shards(seed: int, size: int) -> None:
    """Row i of every column is row i's record."""
    table = make_table(seed, size)
    np.testing.assert_array_equal(table.collect_effects(), ALL.effects)
    centre, spread, signs = table.collect_scales()
    np.testing.assert_array_equal(centre, ALL.centre)
    np.testing.assert_array_equal(spread, ALL.spread)
    np.testing.assert_array_equal(signs, ALL.signs)
    views = ALL.views.reshape(N, 3, R - 1)
    np.testing.assert_array_equal(table.collect_views(), views)
    some = np.array([11, 2, 2, 16])
    np.testing.assert_array_equal(table.collect_views(some), views[some])
    assert ALL.gradients is not None
    np.testing.assert_array_equal(table.get_gradients(some), ALL.gradients[some])


def test_effects_on_new_queries_are_products_with_the_gradients() -> None:
    """<P G_q, G_i> / spread_i."""
    assert ALL.gradients is not None
    probes = torch.randn(6, R, D, generator=torch.manual_seed(0))
    expected = ALL.gradients @ probes.flatten(1).numpy().T / ALL.spread[:, None]
    found = make_table().measure_effects(probes, ALL.spread.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_scaled_gradients_are_gradients_over_their_spread() -> None:
    """c_i G_i in bfloat16; 0 where a row moves nothing."""
    assert ALL.gradients is not None
    spread = ALL.spread.astype(np.float64)
    spread[5] = np.inf
    found = make_table().collect_scaled_gradients(spread)
    assert found.dtype == torch.bfloat16
    expected = ALL.gradients / spread[:, None]
    np.testing.assert_allclose(found.float().numpy(), expected, rtol=2**-8)
    assert not found[5].any()


def test_without_gradients_nothing_that_needs_them_is_given() -> None:
    """ValueError, in each of the three ways."""
    table = make_table(kept=False)
    assert not table.keeps_gradients
    assert make_table().keeps_gradients
    with pytest.raises(ValueError, match="kept no gradients"):
        table.get_gradients(np.array([1]))
    with pytest.raises(ValueError, match="kept no gradients"):
        table.measure_effects(torch.zeros(1, R, D), np.ones(N))
    with pytest.raises(ValueError, match="kept no gradients"):
        table.collect_scaled_gradients(np.ones(N))


def test_one_shard_without_gradients_is_enough_for_none() -> None:
    """Not some rows' alone."""
    first, second = np.arange(9), np.arange(9, N)
    table = RecordTable(N, [(first, cut(first)), (second, cut(second, kept=False))])
    assert not table.keeps_gradients


def test_a_row_without_a_record_is_noticed() -> None:
    """A shard that is missing never becomes rows of zeros."""
    rows = np.arange(14)
    with pytest.raises(ValueError, match="3 of 17 rows have no record"):
        RecordTable(N, [(rows, cut(rows))])


def test_views_of_one_dimension_are_none() -> None:
    """r = 1: (n, 3, 0)."""
    rows = np.arange(N)
    flat = replace(cut(rows), views=np.empty((N, 0), dtype=np.float32))
    assert RecordTable(N, [(rows, flat)]).collect_views().shape == (N, 3, 0)
