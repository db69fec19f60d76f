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
from poisonwatch.sources.arrow_types import refuse_many_columns
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
from poisonwatch.sources.json_row import strip_marks
from poisonwatch.sources.jsonl import refuse_blank_lines, strip_line_end
from poisonwatch.text.words import plural

# Others count only where there is no comma: it may stand in names.
_SEPARATORS = (",", ";", "\t", "|")
# What Excel writes before the header, and reads, where cells are separated by something else.
_SEPARATOR_LINE = re.compile(rb"(?:\xef\xbb\xbf)?sep=([,;\t|])\r*\n")


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
    yielded with its problem. Without a `separator`, it is what the header tells, or Excel's line
    before it. Spaces around names are no part of them.

    Raises SourceError where the header cannot be read, or a quote is opened and never closed.
    """
    lines = _RecordLines(file, name)
    start = lines.peek()
    refuse_other_files(start, name)
    if told := _SEPARATOR_LINE.fullmatch(start):
        separator = told[1].decode()
        lines.number += 1
        start = lines.peek()
    records = _Records(lines, separator or find_separator(start))
    header = next(records, None)
    if header is None:
        return
    if header.problem is not None:
        raise SourceError(f"{name} cannot be read as csv: its header is {header.problem}")
    columns = _strip_names(header.cells)
    refuse_many_columns(len(columns), name)
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


def _strip_names(names: list[str]) -> list[str]:
    """The names of columns without spaces around them, as after commas; as they are where two
    would be the same.
    """
    stripped = [name.strip(" ") for name in names]
    if len(set(stripped)) < len(names):
        return names
    return stripped


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
                start = self.lines.read[: 4 * EXCERPT_CHARACTERS]
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
            if cells:
                return _Record(raw, cells)
            # Blank lines are no records.
            self.lines.count_blank()


class _TooLongError(Exception):
    """A record went beyond MAX_ROW_BYTES."""


class _RecordLines:
    """The lines of a file as text, and those of the current record as bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.number = 0
        self.blank = 0
        self.first_line: bytes | None = None  # where it was peeked at
        self.beyond = io.BytesIO()  # what was read beyond the end of a long record
        self.begin()

    def peek(self) -> bytes:
        """The first line that is not blank, which stays to be read. Blank ones are passed over."""
        line = self.file.readline(MAX_ROW_BYTES + 1)
        while line in (b"\n", b"\r\n"):
            self.number += 1
            self.count_blank()
            line = self.file.readline(MAX_ROW_BYTES + 1)
        self.first_line = line
        return line

    def count_blank(self) -> None:
        """One more line is blank. Raises SourceError where these are too many."""
        self.blank += 1
        refuse_blank_lines(self.blank, self.name)

    def begin(self) -> None:
        """A new record begins."""
        self.first = self.number + 1
        self.read = bytearray()
        self.ended = False

    @property
    def raw(self) -> bytes:
        """The current record, without its line end."""
        return strip_line_end(bytes(self.read))

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line, self.first_line = self.first_line, None
        is_first = line is not None
        if line is None:
            line = self._read_line(MAX_ROW_BYTES + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.read += line
        if len(self.read) > MAX_ROW_BYTES:
            raise _TooLongError
        if is_first:
            line = strip_marks(line)
        return line.decode(errors="surrogateescape")

    def _read_line(self, size: int) -> bytes:
        line = self.beyond.readline(size)
        if not line.endswith(b"\n"):
            line += self.file.readline(size - len(line))
        return line

    def skip_record(self) -> str:
        """Read a long record to its end, which is a line end outside quotes, in pieces; returns its
        SHA-256.
        """
        # A line end inside quotes belongs to a cell: only an even number of quotes closes them.
        digest = hashlib.sha256(self.read)
        quoted = bool(self.read.count(b'"') % 2)
        if self.read.endswith(b"\n") and not quoted:
            return digest.hexdigest()
        while piece := self.beyond.read(MIB) or self.file.read(MIB):
            end = _find_record_end(piece, quoted)
            if end is not None:
                self.beyond = io.BytesIO(piece[end:] + self.beyond.read())
                piece = piece[:end]
            digest.update(piece)
            self.number += piece.count(b"\n")
            if end is not None:
                return digest.hexdigest()
            quoted ^= bool(piece.count(b'"') % 2)
        if quoted:
            raise self.make_unclosed_error()
        return digest.hexdigest()

    def make_unclosed_error(self) -> SourceError:
        """The error of a file that ends inside quotes."""
        return SourceError(
            f"{self.name} cannot be read as csv: "
            f"a quote that is opened in line {self.first} or after it is never closed"
        )


def _find_record_end(piece: bytes, quoted: bool) -> int | None:
    """Behind the first line end outside quotes; `quoted` says whether the piece begins inside."""
    end = 0
    for part in piece.split(b'"'):
        found = -1 if quoted else part.find(b"\n")
        if found >= 0:
            return end + found + 1
        end += len(part) + 1
        quoted = not quoted
    return None
