"""Parquet files, a few rows at a time: no more than some 64 MiB come out of one at once, whatever
few bytes of it stand for.

A dictionary (or a shared prefix) holds a text once that may stand in each row. Where columns are
flat, the longest text that a dictionary can hold says how many rows are read at a time. Where they
are nested, one row may hold it any number of times: they are read as dictionaries, if pyarrow can.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.sources.base import BATCH_ROWS, MAX_BATCH_BYTES, MAX_ROW_BYTES, MIB
from poisonwatch.sources.parquet_pages import measure_longest_entry

_PREFIXED = "DELTA_BYTE_ARRAY"


class ParquetBatches:
    """The record batches of a seekable Parquet file, and its schema."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._plain = self._open([])
        self._metadata = self._plain.metadata
        self.schema: pa.Schema = self._plain.schema_arrow

    def _open(self, dictionaries: list[str]) -> pq.ParquetFile:
        # Column chunks are read in pieces, not whole.
        return pq.ParquetFile(
            self._file, buffer_size=4 * MIB, pre_buffer=False, read_dictionary=dictionaries
        )

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        longest = self._measure_longest_texts()
        read = 0
        if any("." in path for path in longest):
            # Pages without a dictionary among those with one cannot be read as nested
            # dictionaries: then few rows at a time must do.
            with suppress(pa.ArrowNotImplementedError):
                size = _choose_batch_size(self._metadata, {})
                for batch in self._open(list(longest)).iter_batches(size):
                    read += batch.num_rows
                    yield batch
                return
        size = _choose_batch_size(self._metadata, longest)
        for batch in _gather(self._plain.iter_batches(size)):
            if read < batch.num_rows:
                yield batch.slice(read)
            read = max(0, read - batch.num_rows)

    def _measure_longest_texts(self) -> dict[str, int]:
        """Text columns by path that could come to more than MAX_BATCH_BYTES, and the bytes that one
        of their values may have.
        """
        longest: dict[str, int] = {}
        for index in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(index)
            for number in range(group.num_columns):
                chunk = group.column(number)
                most = self._measure_longest_text(chunk)
                if most * chunk.num_values > MAX_BATCH_BYTES:
                    path = chunk.path_in_schema
                    longest[path] = max(most, longest.get(path, 0))
        return longest

    def _measure_longest_text(self, chunk: pq.ColumnChunkMetaData) -> int:
        """The bytes that a value may have which is stored once for many rows; 0 where there is
        none.
        """
        if chunk.physical_type != "BYTE_ARRAY":
            return 0
        stored = int(chunk.total_uncompressed_size)
        if _PREFIXED in chunk.encodings:
            return stored
        if not chunk.has_dictionary_page:
            return 0
        return measure_longest_entry(self._file, chunk)


def _gather(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in larger batches, where small ones are small in bytes, too: each batch takes
    its time.
    """
    gathered: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        rows += batch.num_rows
        size += batch.nbytes
        gathered.append(batch)
        if rows >= BATCH_ROWS or size >= MAX_ROW_BYTES:
            yield _join(gathered)
            rows = size = 0
            gathered = []
    if gathered:
        yield _join(gathered)


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.concat_batches(batches)


def _choose_batch_size(metadata: pq.FileMetaData, longest: dict[str, int]) -> int:
    """Rows that come to some 16 MiB by what is stored of them, and to 32 MiB at most by the longest
    texts (pyarrow's buffers may be twice as large), and at most BATCH_ROWS.
    """
    widest = 1.0  # bytes a row, on average, in the row group where rows are longest
    worst = 1.0  # bytes of a row of longest texts
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        rows = max(group.num_rows, 1)
        widest = max(widest, group.total_byte_size / rows)
        texts = 0.0
        for number in range(group.num_columns):
            chunk = group.column(number)
            texts += longest.get(chunk.path_in_schema, 0) * max(1, chunk.num_values / rows)
        worst = max(worst, texts)
    most = MAX_BATCH_BYTES / 2 / worst
    return max(1, min(BATCH_ROWS, int(MAX_ROW_BYTES / widest), int(most)))
