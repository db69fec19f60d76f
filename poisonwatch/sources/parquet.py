"""Parquet files, a few rows at a time: no more than some 64 MiB come out of one at once, whatever
few bytes of it stand for.

A dictionary (or a shared prefix) holds a text once that may stand in each row. Where columns are
flat, the longest text that a dictionary can hold says how many rows are read at a time. Where they
are nested, one row may hold it any number of times: they are read as dictionaries, if pyarrow can.
"""

from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.sources.arrow_types import refuse_many_columns
from poisonwatch.sources.base import BATCH_ROWS, MAX_BATCH_BYTES, MAX_ROW_BYTES, MIB
from poisonwatch.sources.parquet_pages import (
    PageSizes,
    is_near,
    measure_longest_entry,
    measure_pages,
)
from poisonwatch.sources.unpacking import Budget

_PREFIXED = "DELTA_BYTE_ARRAY"
_WORD_BYTES = 8  # that a value takes at most of which nothing is stored, such as a null
_FAR_CHUNK_BYTES = MIB  # on a server, the footer is believed of chunks that are larger


class ParquetBatches:
    """The record batches of a seekable Parquet file, and its schema.

    Making them raises SourceError where what the file says of itself goes beyond the budget.
    """

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self._plain = self._open([])
        self._metadata = self._plain.metadata
        refuse_many_columns(self._metadata.num_columns, budget.name)
        self._spend()
        self.schema: pa.Schema = self._plain.schema_arrow

    def _open(self, dictionaries: list[str]) -> pq.ParquetFile:
        # Column chunks are read in pieces, not whole.
        return pq.ParquetFile(
            self._file, buffer_size=4 * MIB, pre_buffer=False, read_dictionary=dictionaries
        )

    def _spend(self) -> None:
        """Take off the budget what will come out. Raises SourceError where that is too much."""
        self._budget.take_rows(self._metadata.num_rows)
        near = is_near(self._file)
        for index in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(index)
            together = 0  # one page of each column is unpacked at a time
            for number in range(group.num_columns):
                chunk = group.column(number)
                pages = PageSizes()
                if near or chunk.total_compressed_size <= _FAR_CHUNK_BYTES:
                    pages = measure_pages(self._file, chunk)
                values = _WORD_BYTES * max(chunk.num_values, pages.values)
                stored = max(chunk.total_uncompressed_size, pages.unpacked)
                self._budget.take(max(values, stored))
                together += pages.largest
            self._budget.check_piece(together, "pages")

    def _refuse_many_copies(self, paths: Container[str]) -> None:
        """Raises SourceError where texts of nested columns, once each is unpacked, are too much:
        one row may hold all of them.
        """
        size = 0
        for index in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(index)
            for number in range(group.num_columns):
                chunk = group.column(number)
                if chunk.path_in_schema in paths and "." in chunk.path_in_schema:
                    copies = measure_pages(self._file, chunk).by_dictionary
                    size += copies * self._measure_longest_text(chunk)
        self._budget.check(size)

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
            self._refuse_many_copies(longest)
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
