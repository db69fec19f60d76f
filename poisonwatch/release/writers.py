"""The files of cleared rows, each row as it came: byte by byte, or by its Arrow schema."""

from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 1000  # of a Parquet file
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

    def add(self, raw: bytes) -> None:
        """Write a row, once a row group is full."""
        self.batches.append(pa.ipc.read_record_batch(pa.py_buffer(raw), self.schema))
        if len(self.batches) >= ROW_GROUP_ROWS:
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
        self.batches = []


class CleanSplit:
    """Files of cleared rows, one for each format and schema: clean.jsonl, clean.parquet, and
    clean-2, clean-3, ... where there are more of either. Use it in a `with`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.row_counts: dict[str, int] = {}  # by file, in the order of their first rows
        self._names: dict[RowKind, str] = {}
        self._writers: dict[RowKind, RowWriter] = {}
        self._closing = ExitStack()

    def __enter__(self) -> "CleanSplit":
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def add(self, kind: RowKind, raw: bytes) -> str:
        """Write a row; returns the name of the file that it is in."""
        if kind not in self._writers:
            self._open(kind)
        self._writers[kind].add(raw)
        name = self._names[kind]
        self.row_counts[name] += 1
        return name

    def _open(self, kind: RowKind) -> None:
        # Only columnar rows have a schema.
        _, schema = kind
        suffix = "parquet"
        if schema is None:
            suffix = "jsonl"
        nth = 1 + sum(name.endswith(suffix) for name in self._names.values())
        name = f"clean.{suffix}"
        if nth > 1:
            name = f"clean-{nth}.{suffix}"
        writer: RowWriter
        if schema is None:
            writer = LinesWriter(self.folder / name)
        else:
            writer = ParquetRowWriter(self.folder / name, schema)
        self._closing.callback(writer.close)
        self._names[kind], self._writers[kind] = name, writer
        self.row_counts[name] = 0
