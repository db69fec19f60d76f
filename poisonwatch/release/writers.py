"""Files of rows, each row as it came: byte by byte, or by its Arrow schema. Rows stand
in one file where every usual reader can read them from it.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.release.row_types import (
    MAX_FIELDS,
    MixedTypesError,
    RowType,
    count_fields,
    infer_type,
    merge_types,
)
from poisonwatch.sources.base import MAX_BATCH_BYTES, MIB
from poisonwatch.sources.json_row import parse_record

ROW_GROUP_ROWS = 1000  # of a Parquet file
# Of JSON Lines in which each field has one type; what fits none of them shares one file more.
MAX_TYPED_FILES = 8
# `datasets` tells the types of a file of JSON by its first 10 MiB: what is new later is in another.
TYPING_BYTES = 8 * MIB
RowKind = tuple[str, bytes | None]  # format, and Arrow schema of rows of columnar files


class RowWriter(Protocol):
    """A file that is being written."""

    def add(self, raw: bytes) -> None:
        """Write a row as the ledger has it."""

    def close(self) -> None:
        """Complete the file."""


class LinesWriter:
    """JSON Lines, a row's bytes as they came."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def add(self, raw: bytes) -> None:
        """Write a line."""
        self.file.write(raw + b"\n")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class ParquetRowWriter:
    """Rows of one Arrow schema, each stored as a record batch of one row."""

    def __init__(self, path: Path, schema: bytes) -> None:
        self.schema = pa.ipc.read_schema(pa.py_buffer(schema))
        self.writer = pq.ParquetWriter(path, self.schema, compression="zstd")
        self.batches: list[pa.RecordBatch] = []
        self.size = 0

    def add(self, raw: bytes) -> None:
        """Write a row, once a row group is full."""
        self.batches.append(pa.ipc.read_record_batch(pa.py_buffer(raw), self.schema))
        self.size += len(raw)
        if len(self.batches) >= ROW_GROUP_ROWS or self.size >= MAX_BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self.writer.close()

    def _flush(self) -> None:
        if not self.batches:
            return
        # One chunk in place of as many as there are rows, which would be written one by one.
        table = pa.Table.from_batches(self.batches, self.schema)
        self.writer.write_table(table.combine_chunks())
        self.batches, self.size = [], 0


class _TypedFiles:
    """Which of several files of JSON rows a row goes to: the first whose types go with its own."""

    def __init__(self) -> None:
        self._types: list[RowType] = []
        self._sizes: list[int] = []  # bytes

    def choose(self, raw: bytes) -> int:
        """The number of the file for a row, from 0; MAX_TYPED_FILES for one that fits none."""
        try:
            number = self._find(infer_type(parse_record(raw)))
        except ValueError:
            return MAX_TYPED_FILES
        if number < MAX_TYPED_FILES:
            self._sizes[number] += len(raw) + 1
        return number

    def _find(self, kind: RowType) -> int:
        for number, known in enumerate(self._types):
            try:
                merged = merge_types(known, kind)
            except MixedTypesError:
                continue
            if merged is known:
                return number
            if self._sizes[number] < TYPING_BYTES and count_fields(merged) <= MAX_FIELDS:
                self._types[number] = merged
                return number
        if len(self._types) == MAX_TYPED_FILES:
            return MAX_TYPED_FILES
        self._types.append(kind)
        self._sizes.append(0)
        return len(self._types) - 1


class RowFiles:
    """Files of rows that are called by their `stem`: clean.jsonl, clean.parquet, and clean-2,
    clean-3, ... where there are more of either. Parquet rows of one schema are in one file, and
    JSON rows whose types go together. Use it in a `with`.
    """

    def __init__(self, folder: Path, stem: str = "clean") -> None:
        self.folder = folder
        self.stem = stem
        self.row_counts: dict[str, int] = {}  # by file, in the order of their first rows
        self._names: dict[bytes | int, str] = {}  # by schema, or number of typed file
        self._writers: dict[bytes | int, RowWriter] = {}
        self._typed = _TypedFiles()
        self._closing = ExitStack()

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def add(self, kind: RowKind, raw: bytes) -> str:
        """Write a row; returns the name of the file that it is in."""
        # Only columnar rows have a schema.
        _, schema = kind
        key: bytes | int = schema or self._typed.choose(raw)
        if key not in self._writers:
            self._open(key)
        self._writers[key].add(raw)
        name = self._names[key]
        self.row_counts[name] += 1
        return name

    def _open(self, key: bytes | int) -> None:
        suffix = "parquet"
        if isinstance(key, int):
            suffix = "jsonl"
        nth = 1 + sum(name.endswith(suffix) for name in self._names.values())
        name = f"{self.stem}.{suffix}"
        if nth > 1:
            name = f"{self.stem}-{nth}.{suffix}"
        writer: RowWriter
        if isinstance(key, int):
            writer = LinesWriter(self.folder / name)
        else:
            writer = ParquetRowWriter(self.folder / name, key)
        self._closing.callback(writer.close)
        self._names[key], self._writers[key] = name, writer
        self.row_counts[name] = 0
