"""Rows of Arrow tables: Parquet and Arrow files, and whatever else comes in record batches.

A row is kept as a record batch of itself, serialised without its schema, so that it can be written
again as it came.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import BATCH_ROWS, MAX_ROW_BYTES, MIB, Reading, limit_size

# Begins every serialised record batch: Arrow's continuation marker.
BATCH_MAGIC = b"\xff\xff\xff\xff"


def read_parquet(file: BinaryIO, name: str, reading: Reading) -> Iterator[RawRow]:
    """The rows of a Parquet file, which must be seekable; its column chunks are read in pieces, not
    whole.
    """
    parquet = pq.ParquetFile(file, buffer_size=4 * MIB, pre_buffer=False)
    batches = parquet.iter_batches(_choose_batch_size(parquet.metadata))
    yield from read_batches(batches, name, reading, schema=parquet.schema_arrow)


def _choose_batch_size(metadata: pq.FileMetaData) -> int:
    """Rows that come to some 16 MiB, and at most BATCH_ROWS."""
    widest = 1.0  # bytes a row, on average, in the row group where rows are longest
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        widest = max(widest, group.total_byte_size / max(group.num_rows, 1))
    return max(1, min(BATCH_ROWS, int(MAX_ROW_BYTES / widest)))


def read_arrow(file: BinaryIO, name: str, reading: Reading) -> Iterator[RawRow]:
    """The rows of a seekable Arrow file, in the file format (also known as Feather) or the stream
    format.
    """
    # Both formats have the suffix .arrow; only the file format begins with its name.
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        table = pa.ipc.open_file(file)
        batches = map(table.get_batch, range(table.num_record_batches))
        yield from read_batches(batches, name, reading, schema=table.schema)
    else:
        stream = pa.ipc.open_stream(file)
        yield from read_batches(stream, name, reading, schema=stream.schema)


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
            plain = simplify_schema(batch.schema if schema is None else schema)
            _refuse_twin_columns(plain, name)
            reading.schema = plain.serialize().to_pybytes()
        missing = sorted(set(plain.names) ^ set(batch.schema.names))
        if missing:
            raise SourceError(
                f"{name}, row {position + 1}: the column {missing[0]} is in some of its parts "
                "and not in others"
            )
        # Parts of a data set may have their columns in another order.
        for some in _slice_batch(batch.select(plain.names).cast(plain)):
            for record, raw in split_rows(some):
                place = f"{name}, row {position + 1}"
                yield limit_size(RawRow(name, position, place, record, raw=raw))
                position += 1


def _refuse_twin_columns(schema: pa.Schema, name: str) -> None:
    """Raises SourceError where two columns have one name."""
    twins = [column for column, count in Counter(schema.names).items() if count > 1]
    if twins:
        raise SourceError(f"{name} has two columns called {min(twins)}: a row can hold one of them")


def split_rows(batch: pa.RecordBatch) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Each row of a batch: its record, and itself as a serialised batch; the same row has the same
    bytes in any batch.
    """
    for index, record in enumerate(batch.to_pylist()):
        # A copy: of a slice, up to 63 bytes of its neighbours are serialised, too.
        alone = pa.concat_batches([batch.slice(index, 1)])
        yield record, alone.serialize().to_pybytes()


def _slice_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def simplify_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without types whose values lie outside the row: dictionaries, views and
    extensions.
    """
    fields = [field.with_type(_simplify_type(field.type)) for field in schema]
    return pa.schema(fields, schema.metadata)


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
        batch = pa.ipc.read_record_batch(pa.py_buffer(raw), _parse_schema(schema))
        record: Mapping[str, Any] = batch.to_pylist()[0]
    except (pa.ArrowException, OSError, EOFError, IndexError) as error:
        raise ValueError(f"not an Arrow row ({error})") from None
    return record


def count_columns(schema: bytes) -> int:
    """How many columns a serialised schema has."""
    return len(_parse_schema(schema))


# Rows are decoded one by one, and thousands of them have one schema.
@lru_cache(maxsize=64)
def _parse_schema(schema: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(schema))
