"""How large the rows of Arrow batches are once each holds its own values. A dictionary, a run or a
view can hold a text once that stands in a million rows.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from poisonwatch.sources.base import BATCH_ROWS, MAX_ROW_BYTES

Sizes = npt.NDArray[np.int64]  # bytes, one a row
_MEASURED_ROWS = 64 * BATCH_ROWS  # at a time: a batch of nothing may have any number of rows
_WORD_BYTES = 8  # that a value takes which has no length of its own, at most


def cut_batch(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The rows of a batch in order, at most BATCH_ROWS at a time and about MAX_ROW_BYTES, and how
    many bytes they are unpacked; a row that is longer comes alone.
    """
    for start in range(0, batch.num_rows, _MEASURED_ROWS):
        yield from _cut_measured(batch.slice(start, _MEASURED_ROWS))


def _cut_measured(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
    sizes = measure_rows(batch)
    start = 0
    while start < batch.num_rows:
        ends = np.cumsum(sizes[start : start + BATCH_ROWS])
        rows = max(1, int(np.searchsorted(ends, MAX_ROW_BYTES, side="right")))
        yield batch.slice(start, rows), int(ends[rows - 1])
        start += rows


def measure_rows(batch: pa.RecordBatch) -> Sizes:
    """About how many bytes each row of a batch takes, all of its values unpacked."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _measure(column)
    return sizes


def _measure(array: pa.Array) -> Sizes:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _measure(array.storage)
    if pa.types.is_dictionary(kind):
        # Of an index that is missing, any value will do.
        values = np.append(_measure(array.dictionary), 0)
        places = array.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
        taken: Sizes = np.take(values, places)
        return taken
    if pa.types.is_run_end_encoded(kind):
        rows = np.arange(array.offset, array.offset + len(array))
        runs = np.searchsorted(array.run_ends.to_numpy(), rows, side="right")
        return _measure(array.values)[runs]
    if pa.types.is_struct(kind):
        sizes = np.zeros(len(array), np.int64)
        for index in range(kind.num_fields):
            sizes += _measure(array.field(index))
        return sizes
    if pa.types.is_fixed_size_list(kind):
        start = array.offset * kind.list_size
        inner = _measure(array.values)[start : start + len(array) * kind.list_size]
        sums: Sizes = inner.reshape(len(array), kind.list_size).sum(axis=1)
        return sums
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        first = array.offsets.to_numpy().astype(np.int64)
        return _sum_between(array.values, first, first + array.sizes.to_numpy())
    if hasattr(array, "offsets"):
        offsets = array.offsets.to_numpy()
        return _sum_between(array.values, offsets[:-1], offsets[1:])
    return _measure_texts(array)


def _sum_between(values: pa.Array, first: Sizes, beyond: Sizes) -> Sizes:
    """What the values take together from `first` on and before `beyond`."""
    if not len(first):
        return np.zeros(0, np.int64)
    # Others may be those of a million rows.
    start, end = int(first.min()), int(max(first.max(), beyond.max()))
    inner = _measure(values.slice(start, end - start))
    total = np.concatenate([[0], np.cumsum(inner)])
    sums: Sizes = total[beyond - start] - total[first - start] + _WORD_BYTES
    return sums


def _measure_texts(array: pa.Array) -> Sizes:
    kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # A view is 16 bytes, of which the first 4 are the length.
        views = np.frombuffer(array.buffers()[1], np.int32)[::4]
        return views[array.offset : array.offset + len(array)].astype(np.int64)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        lengths = pc.binary_length(array).fill_null(0)
        return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)
    width = _WORD_BYTES
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
    return np.full(len(array), width, np.int64)
