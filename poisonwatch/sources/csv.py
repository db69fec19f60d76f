"""CSV, read record by record: one that cannot be read costs one row. A cell is text, whatever it
spells. Cells are separated by what the header separates them by.
"""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.arrow import split_rows
from poisonwatch.sources.base import (
    BATCH_ROWS,
    EXCERPT_CHARACTERS,
    MAX_ROW_BYTES,
    MIB,
    Reading,
    describe_too_long,
    limit_size,
)
from poisonwatch.sources.encodings import describe_not_utf8, refuse_other_files
from poisonwatch.sources.jsonl import strip_line_end
from poisonwatch.text.words import plural

_BOM = b"\xef\xbb\xbf"
# Others count only where there is no comma: it may stand in names.
_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True, slots=True)
class _Record:
    """What stands in one record: its cells, or the problem that keeps them from being read."""

    raw: bytes
    cells: list[str]
    problem: str | None = None

    def find_misfit(self, columns: int) -> str | None:
        """Why this is no row of so many columns, if so."""
        if self.problem is not None or len(self.cells) == columns:
            return self.problem
        return f"{plural(len(self.cells), 'cell')} where the header has {columns}"


def read_csv(
    file: BinaryIO, name: str, reading: Reading, separator: str | None = None
) -> Iterator[RawRow]:
    """The rows of a CSV file whose first record names the columns; a record that is not like it is
    yielded with its problem. Without a `separator`, it is what the header tells.

    Raises SourceError where the header cannot be read, or a quote is opened and never closed.
    """
    lines = _RecordLines(file, name)
    start = lines.peek()
    refuse_other_files(start, name)
    records = _Records(lines, separator or find_separator(start))
    header = next(records, None)
    if header is None:
        return
    columns = header.cells
    if header.problem is not None:
        raise SourceError(f"{name} cannot be read as csv: its header is {header.problem}")
    for column, count in Counter(columns).items():
        if count > 1:
            raise SourceError(
                f"{name} has two columns called {column!a}: a row can hold one of them"
            )
    schema = pa.schema([(column, pa.string()) for column in columns])
    reading.schema = schema.serialize().to_pybytes()
    position, size, gathered = 0, 0, list[_Record]()
    for record in records:
        gathered.append(record)
        size += len(record.raw)
        # Rows go through Arrow many at a time, which takes less than one by one.
        if len(gathered) == BATCH_ROWS or size > MAX_ROW_BYTES:
            yield from _convert_records(gathered, schema, name, position)
            position, size, gathered = position + len(gathered), 0, []
    yield from _convert_records(gathered, schema, name, position)


def read_tsv(file: BinaryIO, name: str, reading: Reading) -> Iterator[RawRow]:
    """The rows of a CSV file whose cells are separated by tabs."""
    yield from read_csv(file, name, reading, separator="\t")


def find_separator(header: bytes) -> str:
    """What separates the cells of a header: a comma, or where there is none a semicolon, tab or
    bar.
    """
    outside_quotes = re.sub(rb'"[^"]*"', b"", header)
    for separator in _SEPARATORS:
        if separator.encode() in outside_quotes:
            return separator
    return _SEPARATORS[0]


def _convert_records(
    records: list[_Record], schema: pa.Schema, name: str, start: int
) -> Iterator[RawRow]:
    """Records as rows, through Arrow together; those with a problem stay where they stood."""
    columns = len(schema)
    problems = [record.find_misfit(columns) for record in records]
    fitting = []
    for record, problem in zip(records, problems, strict=True):
        if problem is None:
            fitting.append(dict(zip(schema.names, record.cells, strict=True)))
    read = split_rows(pa.RecordBatch.from_pylist(fitting, schema=schema))
    for position, (record, problem) in enumerate(zip(records, problems, strict=True), start):
        place = f"{name}, row {position + 1}"
        if problem is not None:
            yield RawRow(name, position, place, problem=problem, raw=record.raw)
        else:
            found, raw = next(read)
            yield limit_size(RawRow(name, position, place, found, raw=raw))


def describe_csv_problem(raw: bytes, columns: int) -> str:
    """What is wrong with a record's bytes."""
    lines = _RecordLines(io.BytesIO(raw), "the record")
    record = next(_Records(lines, _SEPARATORS[0]), None)
    problem = record.find_misfit(columns) if record else None
    return problem or "not an Arrow row"


class _Records:
    """The records of a file, one after the other."""

    def __init__(self, lines: "_RecordLines", separator: str) -> None:
        # The process has one limit for all, 128 KiB by default; here whole records are bounded.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
        self.lines = lines
        self.reader = csv.reader(lines, delimiter=separator, strict=True)

    def __iter__(self) -> "_Records":
        return self

    def __next__(self) -> _Record:
        while True:
            self.lines.begin()
            try:
                cells = next(self.reader)
            except _TooLongError:
                start = self.lines.raw[: 4 * EXCERPT_CHARACTERS]
                text = start.decode(errors="replace")[:EXCERPT_CHARACTERS]
                problem = describe_too_long(self.lines.skip_record())
                return _Record(text.encode(), [], problem)
            except csv.Error as error:
                if self.lines.ended:
                    raise self.lines.make_unclosed_error() from None
                return _Record(self.lines.raw, [], f"not CSV ({error})")
            raw = self.lines.raw
            # The reader was given undecodable bytes as lone surrogates: now they can be named.
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                return _Record(raw, cells, describe_not_utf8(raw, error))
            # Blank lines are no records.
            if cells:
                return _Record(raw, cells)


class _TooLongError(Exception):
    """A record went beyond MAX_ROW_BYTES."""


class _RecordLines:
    """The lines of a file as text, and those of the current record as bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.number = 0
        self.first_line: bytes | None = None  # where it was peeked at
        self.begin()

    def peek(self) -> bytes:
        """The first line that is not blank, which stays to be read. Blank ones are passed over."""
        line = self.file.readline(MAX_ROW_BYTES + 1)
        while line in (b"\n", b"\r\n"):
            self.number += 1
            line = self.file.readline(MAX_ROW_BYTES + 1)
        self.first_line = line
        return line

    def begin(self) -> None:
        """A new record begins."""
        self.first = self.number + 1
        self.lines_read: list[bytes] = []
        self.size = 0
        self.ended = False

    @property
    def raw(self) -> bytes:
        """The current record, without its line end."""
        return strip_line_end(b"".join(self.lines_read))

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line, self.first_line = self.first_line, None
        is_first = line is not None
        if line is None:
            line = self.file.readline(MAX_ROW_BYTES + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.lines_read.append(line)
        self.size += len(line)
        if self.size > MAX_ROW_BYTES:
            raise _TooLongError
        if is_first:
            line = line.removeprefix(_BOM)
        return line.decode(errors="surrogateescape")

    def skip_record(self) -> str:
        """Read a long record to its end, which is a line end outside quotes, in pieces; returns its
        SHA-256.
        """
        # A line end inside quotes belongs to a cell: only an even number of quotes closes them.
        digest, quotes, last = hashlib.sha256(), 0, b""
        for last in self.lines_read:
            digest.update(last)
            quotes += last.count(b'"')
        while not last.endswith(b"\n") or quotes % 2:
            last = self.file.readline(MIB)
            if not last and quotes % 2:
                raise self.make_unclosed_error()
            if not last:
                break
            digest.update(last)
            quotes += last.count(b'"')
            self.number += last.endswith(b"\n")
        return digest.hexdigest()

    def make_unclosed_error(self) -> SourceError:
        """The error of a file that ends inside quotes."""
        return SourceError(
            f"{self.name} cannot be read as csv: "
            f"a quote that is opened in line {self.first} or after it is never closed"
        )
