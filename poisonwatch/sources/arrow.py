"""Rows of Arrow tables: Parquet and Arrow files, and whatever else comes in record batches.

A row is kept as a record batch of itself, serialised without its schema, so that it can be written
again as it came.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import BATCH_ROWS, MAX_ROW_BYTES, MIB, Reading, limit_size

BATCH_MAGIC = b"\xff\xff\xff\xff"  # begins every serialised record batch


def read_parquet(file: BinaryIO, name: str, reading: Reading) -> Iterator[RawRow]:
    """The rows of a Parquet file, which must be seekable; its column chunks are read in pieces, not
    whole.
    """
    parquet = pq.ParquetFile(file, buffer_size=4 * MIB, pre_buffer=False)
    yield from read_batches(
        parquet.iter_batches(_choose_batch_size(parquet.metadata)),
        name,
        reading,
        parquet.schema_arrow,
    )


def _choose_batch_size(metadata: pq.FileMetaData) -> int:
    """Rows that come to some 16 MiB, and at most BATCH."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return max(1, min(BATCH_ROWS, int(MAX_ROW_BYTES / max(widest, 1))))


def read_arrow(file: BinaryIO, name: str, reading: Reading) -> Iterator[RawRow]:
    """The rows of a seekable Arrow file, in the file format (also known as Feather) or the stream
    format.
    """
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        table = pa.ipc.open_file(file)
        batches: Iterable[pa.RecordBatch] = (
            table.get_batch(i) for i in range(table.num_record_batches)
        )
        yield from read_batches(batches, name, reading, table.schema)
    else:
        stream = pa.ipc.open_stream(file)
        yield from read_batches(stream, name, reading, stream.schema)


def read_batches(
    batches: Iterable[pa.RecordBatch], name: str, reading: Reading, schema: pa.Schema | None = None
) -> Iterator[RawRow]:
    """The rows of record batches, all by one schema (by default the first one's); `reading` gets
    it.

    Raises SourceError where a batch lacks a column, or two columns have one name.
    """
    plain = None
    position = 0
    for batch in batches:
        if plain is None:
            plain = simplify_schema(schema if schema is not None else batch.schema)
            twice = sorted({column for column in plain.names if plain.names.count(column) > 1})
            if twice:
                raise SourceError(
                    f"{name} has two columns called {twice[0]}: a row can hold one of them"
                )
            reading.schema = plain.serialize().to_pybytes()
        missing = sorted(set(plain.names) ^ set(batch.schema.names))
        if missing:
            raise SourceError(
                f"{name}, row {position + 1}: the column {missing[0]} is in some of its parts and not in others"
            )
        for some in _slice_batch(batch.select(plain.names).cast(plain)):
            for record, raw in split_rows(some):
                yield limit_size(
                    RawRow(name, position, f"{name}, row {position + 1}", record, raw=raw)
                )
                position += 1


def split_rows(batch: pa.RecordBatch) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Each row of a batch: its record, and itself as a serialised batch; the same row has the same
    bytes in any batch.
    """
    for index, record in enumerate(batch.to_pylist()):
        alone = pa.concat_batches(
            [batch.slice(index, 1)]
        )  # a copy: of a slice, up to 63 bytes of its neighbours are serialised too
        yield record, alone.serialize().to_pybytes()


def _slice_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def simplify_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without types whose values lie outside the row: dictionaries, views, extensions."""
    return pa.schema(
        [field.with_type(_simplify_type(field.type)) for field in schema], schema.metadata
    )


def _simplify_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _simplify_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _simplify_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_simplify_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_simplify_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_simplify_type(kind.value_type)))
    return kind


def decode_batch(raw: bytes, schema: bytes) -> Mapping[str, Any]:
    """The record of a serialised row.

    Raises ValueError where it is none.
    """
    try:
        record: Mapping[str, Any] = pa.ipc.read_record_batch(
            pa.py_buffer(raw), _parse_schema(schema)
        ).to_pylist()[0]
    except (pa.ArrowException, OSError, EOFError, IndexError) as error:
        raise ValueError(f"not an Arrow row ({error})") from None
    return record


def count_columns(schema: bytes) -> int:
    """How many columns a serialised schema has."""
    return len(_parse_schema(schema))


@lru_cache(maxsize=64)
def _parse_schema(schema: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(schema))
