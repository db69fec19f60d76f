"""How large rows of Arrow batches are once each holds its own values."""

import pyarrow as pa
import pytest

from poisonwatch.sources.arrow_sizes import cut_batch, measure_rows
from poisonwatch.sources.base import BATCH_ROWS, MAX_ROW_BYTES, MIB

TEXTS = ["x" * 1000, None, "y", "x" * 1000]
SIZES = [1000, 0, 1, 1000]
COLUMNS = {
    "string": pa.array(TEXTS),
    "large string": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "binary": pa.array(TEXTS).cast(pa.binary()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 2, 3, 4], pa.array(TEXTS)),
    "json": pa.array(TEXTS, pa.json_()),
    "struct": pa.StructArray.from_arrays([pa.array(TEXTS)], names=["a"]),
    "list": pa.array([[text] for text in TEXTS]),
    "list of dictionary": pa.array(
        [[text] for text in TEXTS], pa.list_(pa.dictionary(pa.int8(), pa.string()))
    ),
    "list view": pa.array([[text] for text in TEXTS], pa.list_view(pa.string())),
    "fixed list": pa.array([[text] for text in TEXTS], pa.list_(pa.string(), 1)),
    "map": pa.array([[(1, text)] for text in TEXTS], pa.map_(pa.int8(), pa.string())),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_are_measured_by_what_they_hold(kind: str) -> None:
    """To a few words, of a slice, too; what is null takes nothing."""
    batch = pa.RecordBatch.from_arrays([COLUMNS[kind]], ["a"])
    for start in range(len(TEXTS)):
        found = measure_rows(batch.slice(start))
        assert all(
            0 <= size - expected <= 32 for size, expected in zip(found, SIZES[start:], strict=True)
        )


def test_numbers_take_a_word() -> None:
    """At least nothing is forgotten."""
    batch = pa.RecordBatch.from_pydict({"a": [1, 2], "b": [True, None], "c": [None, None]})
    assert list(measure_rows(batch)) == [24, 24]


def test_batches_are_cut_by_rows_and_by_bytes() -> None:
    """In order; a row beyond the bound comes alone."""
    small = pa.RecordBatch.from_pydict({"a": list(range(2 * BATCH_ROWS + 5))})
    assert [some.num_rows for some, _ in cut_batch(small)] == [BATCH_ROWS, BATCH_ROWS, 5]
    text = pa.array(["x" * MIB])
    wide = pa.DictionaryArray.from_arrays(pa.array([0] * 40, pa.int8()), text)
    cuts = list(cut_batch(pa.RecordBatch.from_arrays([wide], ["a"])))
    assert [some.num_rows for some, _ in cuts] == [16, 16, 8]
    assert [size for _, size in cuts] == [MAX_ROW_BYTES, MAX_ROW_BYTES, 8 * MIB]
    long = pa.array(["a", "x" * (MAX_ROW_BYTES + 1), "b"])
    cuts = list(cut_batch(pa.RecordBatch.from_arrays([long], ["a"])))
    assert [some.num_rows for some, _ in cuts] == [1, 1, 1]


def test_empty_batch_has_no_rows() -> None:
    """No error."""
    empty = pa.RecordBatch.from_pydict({"a": pa.array([], pa.list_(pa.string()))})
    assert list(cut_batch(empty)) == []
