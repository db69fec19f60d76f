"""Rows of Arrow tables: Parquet and Arrow files, and whatever else comes in record batches.

A row is kept as a record batch of itself, serialised without its schema, so that it can be written
again as it came.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, BinaryIO

import pyarrow as pa

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.arrow_messages import iterate_batches
from poisonwatch.sources.arrow_sizes import cut_batch
from poisonwatch.sources.arrow_types import (
    Decode,
    count_all_columns,
    get_storage_schema,
    list_records,
    make_decoder,
    name_column,
    refuse_many_columns,
    refuse_unwritable_columns,
    simplify_schema,
    unpack_batch,
    widen_schema,
)
from poisonwatch.sources.base import (
    EXCERPT_CHARACTERS,
    MAX_BATCH_BYTES,
    MAX_ROW_BYTES,
    MIB,
    Reading,
    make_long_row,
)
from poisonwatch.sources.pandas_metadata import refuse_renamed_columns
from poisonwatch.sources.parquet import ParquetBatches
from poisonwatch.sources.unpacking import Budget
from poisonwatch.text.display import excerpt, get_first_line

# Begins every serialised record batch: Arrow's continuation marker.
BATCH_MAGIC = b"\xff\xff\xff\xff"


def read_parquet(
    file: BinaryIO, name: str, reading: Reading, budget: Budget | None = None
) -> Iterator[RawRow]:
    """The rows of a Parquet file, which must be seekable. Raises SourceError where what it unpacks
    to goes beyond the budget.
    """
    batches = ParquetBatches(file, budget or Budget(name))
    yield from read_batches(batches, name, reading, schema=batches.schema)


def read_arrow(
    file: BinaryIO, name: str, reading: Reading, budget: Budget | None = None
) -> Iterator[RawRow]:
    """The rows of a seekable Arrow file, in the file format (also known as Feather) or the stream
    format. Raises SourceError where what it unpacks to goes beyond the budget.
    """
    schema, batches = iterate_batches(file, name, budget or Budget(name))
    yield from read_batches(map(_check, batches), name, reading, schema=schema)


def _check(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose offsets lie within what they point to. Raises pa.ArrowInvalid where they do
    not: a file may say anything.
    """
    batch.validate()
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        # Text that is no UTF-8 costs its row, later.
        if "UTF8" not in str(error):
            raise
    return batch


def read_batches(
    batches: Iterable[pa.RecordBatch], name: str, reading: Reading, schema: pa.Schema | None = None
) -> Iterator[RawRow]:
    """The rows of record batches, all by one schema (by default the first one's); `reading` gets
    it. A column that a batch lacks is null there; a row that cannot be read by the schema has a
    problem.

    Raises SourceError where two columns have one name, a release could not hold one, or pandas
    would call one otherwise.
    """
    reader = None
    for batch in batches:
        if reader is None:
            plain = widen_schema(simplify_schema(batch.schema if schema is None else schema))
            refuse_many_columns(count_all_columns(plain), name)
            _refuse_twin_columns(plain, name)
            refuse_unwritable_columns(plain, name)
            refuse_renamed_columns(plain.metadata, name)
            reading.schema = plain.serialize().to_pybytes()
            reader = _BatchReader(name, plain)
        for some, size in cut_batch(batch):
            if size > MAX_BATCH_BYTES:
                yield reader.pass_over(size)
            else:
                yield from reader.read(some)


@dataclass(slots=True)
class _Broken:
    """A row that cannot be read, and why."""

    problem: str


class _BatchReader:
    """Reads record batches by one simplified schema; positions go on."""

    def __init__(self, name: str, schema: pa.Schema) -> None:
        self._name = name
        self._schema = schema
        self._storage = get_storage_schema(schema)
        self._decode = make_decoder(schema)
        self._position = 0

    def read(self, batch: pa.RecordBatch) -> Iterator[RawRow]:
        """The rows of a batch, which is small enough to be unpacked."""
        for record, raw in self._read_rows(batch):
            position = self._position
            place = f"{self._name}, row {position + 1}"
            self._position += 1
            if isinstance(record, _Broken):
                yield RawRow(self._name, position, place, problem=record.problem, raw=raw)
            elif len(raw) > MAX_ROW_BYTES:
                digest = sha256(raw).hexdigest()
                yield make_long_row(self._name, position, place, _show_start(record), digest)
            else:
                yield RawRow(self._name, position, place, record, raw=raw)

    def pass_over(self, size: int) -> RawRow:
        """What is said of a row of so many bytes, which is not even unpacked."""
        position = self._position
        self._position += 1
        return RawRow(
            self._name,
            position,
            f"{self._name}, row {position + 1}",
            problem=f"longer than {MAX_ROW_BYTES // MIB} MiB (some {size // MIB} MiB, unpacked)",
        )

    def _read_rows(
        self, batch: pa.RecordBatch
    ) -> Iterator[tuple[Mapping[str, Any] | _Broken, bytes]]:
        try:
            stored = unpack_batch(self._align(batch), self._storage)
            rows = list(split_rows(stored))
        # Values beyond what Python has (a year 30,000), text that is no UTF-8, names that stand
        # twice in a struct: pyarrow raises errors of many kinds.
        except (pa.ArrowException, ValueError, OverflowError, KeyError, TypeError) as error:
            if batch.num_rows > 1:
                for index in range(batch.num_rows):
                    yield from self._read_rows(batch.slice(index, 1))
            else:
                yield self._explain(batch, error)
            return
        if self._decode is None:
            yield from rows
            return
        for record, raw in rows:
            try:
                yield self._decode(record), raw
            except ValueError as error:
                yield _Broken(str(error)), raw

    def _align(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns of the schema in its order. Raises ValueError where the batch has others."""
        names = batch.schema.names
        if names == self._schema.names:
            return batch
        others = sorted(set(names) - set(self._schema.names))
        if others:
            raise ValueError(
                f"{name_column(others[0])} is in some parts of the source and not in its schema"
            )
        columns = []
        for field in self._schema:
            if field.name in names:
                columns.append(batch.column(field.name))
            elif field.nullable:
                columns.append(pa.nulls(batch.num_rows, self._storage.field(field.name).type))
            else:
                raise ValueError(f"{name_column(field.name)} is missing, and must not be null")
        return pa.RecordBatch.from_arrays(columns, self._schema.names)

    def _explain(self, row: pa.RecordBatch, error: Exception) -> tuple[_Broken, bytes]:
        """Why a batch of one row cannot be read, and what can be kept of it."""
        raw = b""
        try:
            aligned = self._align(row)
        except ValueError as misfit:
            return _Broken(str(misfit)), raw
        found = get_first_line(error)
        for field, column in zip(self._storage, aligned.columns, strict=True):
            alone = pa.RecordBatch.from_arrays([column], [field.name])
            try:
                list_records(unpack_batch(alone, pa.schema([field])))
            except (pa.ArrowException, ValueError, OverflowError, KeyError, TypeError) as cause:
                found = f"{name_column(field.name)} cannot be read: {get_first_line(cause)}"
                break
        # Its bytes are its identity.
        try:
            raw = _serialise(unpack_batch(aligned, self._storage))
        except pa.ArrowException:
            raw = str(aligned.schema).encode()
        return _Broken(excerpt(found, 300)), raw


def _show_start(record: Mapping[str, Any]) -> bytes:
    """How a record begins, for people."""
    cells = []
    for column, value in record.items():
        cells.append(f"{column}: {str(value)[:EXCERPT_CHARACTERS]}")
    return ", ".join(cells)[:EXCERPT_CHARACTERS].encode()


def _refuse_twin_columns(schema: pa.Schema, name: str) -> None:
    """Raises SourceError where two columns have one name."""
    twins = [column for column, count in Counter(schema.names).items() if count > 1]
    if twins:
        raise SourceError(f"{name} has two columns called {min(twins)}: a row can hold one of them")


def split_rows(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row of a batch: its record, and itself as a serialised batch; the same row has the same
    bytes in any batch.
    """
    for index, record in enumerate(list_records(batch)):
        yield record, _serialise(batch.slice(index, 1))


def _serialise(row: pa.RecordBatch) -> bytes:
    # A copy: of a slice, up to 63 bytes of its neighbours are serialised, too.
    raw: bytes = pa.concat_batches([row]).serialize().to_pybytes()
    return raw


def decode_batch(raw: bytes, schema: bytes) -> Mapping[str, Any]:
    """The record of a serialised row.

    Raises ValueError where it is none.
    """
    storage, decode = _parse_reading(schema)
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(raw), storage)
        record: Mapping[str, Any] = list_records(batch)[0]
    except (pa.ArrowException, OSError, EOFError, IndexError) as error:
        raise ValueError(f"not an Arrow row ({error})") from None
    if decode is not None:
        record = decode(record)
    return record


def encode_batch(raw: bytes, schema: bytes, record: Mapping[str, Any]) -> bytes:
    """A serialised row with the columns of another record; those that are equal stay as they are.

    Raises ValueError where a column cannot hold its value.
    """
    storage, _ = _parse_reading(schema)
    before = decode_batch(raw, schema)
    batch = pa.ipc.read_record_batch(pa.py_buffer(raw), storage)
    columns = []
    for field, column in zip(storage, batch.columns, strict=True):
        value = record[field.name]
        if value != before[field.name]:
            try:
                column = pa.array([value], field.type)
            except (pa.ArrowException, OverflowError, TypeError) as error:
                raise ValueError(f"{name_column(field.name)}: {get_first_line(error)}") from None
        columns.append(column)
    return _serialise(pa.RecordBatch.from_arrays(columns, schema=storage))


def count_columns(schema: bytes) -> int:
    """How many columns a serialised schema has."""
    return len(_parse_schema(schema))


def _parse_schema(schema: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(schema))


# Rows are decoded one by one, and thousands of them have one schema.
@lru_cache(maxsize=64)
def _parse_reading(schema: bytes) -> tuple[pa.Schema, Decode | None]:
    """How rows of a serialised schema are stored, and what decodes their records."""
    typed = simplify_schema(_parse_schema(schema))
    return get_storage_schema(typed), make_decoder(typed)
