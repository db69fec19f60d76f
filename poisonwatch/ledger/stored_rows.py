"""Rows of a batch as they stand in the ledger: where each is, and its bytes when it is looked at.

A batch of a million rows is three numbers a row in memory (`BatchPlaces`). What stands at a place
is read again by the format, and for columnar files the Arrow schema, that it came in with
(`shapes`): some rows at a time, each time anew (`StoredRows`).
"""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Row, Select, select

from poisonwatch.errors import OperationError
from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Draft, Format
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.placed_rows import PLACED_RAW, PLACED_SHAPE
from poisonwatch.ledger.records import find_takeover
from poisonwatch.ledger.shapes import parse_format
from poisonwatch.ledger.tables import files, places, rows, shapes, variants
from poisonwatch.sources.open import SourceRows, decode_row
from poisonwatch.sources.spooled import RowColumn

# Of some places: rows' numbers, positions, shapes.
_Columns = tuple["array[int]", "array[int]", "array[int]"]

ROWS_PER_READ = 200  # rows whose bytes are in memory at a time: one may be megabytes
PLACES_PER_READ = 10_000

# That selects the numbers of rows.
RowQuery = Select[tuple[int]] | CompoundSelect[tuple[int]]

CHANGED_BYTES = "its bytes in the ledger are not those that were pulled (`poisonwatch verify`)"


@dataclass(frozen=True, slots=True)
class Readers:
    """By the number of a shape its format, None where nothing was read, and the schema of its rows;
    and when the chain of `records` took over the rows that were there, if any were.
    """

    shapes: dict[int, tuple[Format | None, bytes | None]]
    took_over: str | None

    def is_older(self, first_seen: str) -> bool:
        """Whether a row was there before the chain: an earlier version may have read less of it, so
        that its id cannot be computed again.
        """
        return self.took_over is not None and first_seen <= self.took_over


@dataclass(frozen=True, slots=True)
class _FilePlaces:
    """Places of one file from the `start`-th of a batch: its number and its name."""

    file: int
    name: str
    start: int


class BatchPlaces:
    """The places of a batch in the order of files' names and positions: of each the row's number,
    the position in its file, and the shape of its bytes.
    """

    def __init__(self) -> None:
        self.numbers: array[int] = array("q")
        self.positions: array[int] = array("q")
        self.shapes: array[int] = array("q")
        self._files: list[_FilePlaces] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def add_file(self, file: int, name: str, found: _Columns) -> None:
        """Add the places of a file: rows' numbers, ascending positions, shapes."""
        self._files.append(_FilePlaces(file, name, len(self)))
        for whole, part in zip((self.numbers, self.positions, self.shapes), found, strict=True):
            whole.extend(part)

    def find(self, source: str, position: int) -> int:
        """Which of the places is this position of a source's file. Raises KeyError where none
        is.
        """
        for i, file in enumerate(self._files):
            if file.name != source:
                continue
            end = self._find_end(i)
            at = bisect_left(self.positions, position, file.start, end)
            if at < end and self.positions[at] == position:
                return at
        raise KeyError((source, position))

    def list_chunks(self, start: int, stop: int) -> Iterator[tuple[int, str, range]]:
        """The places from `start` to `stop` in pieces of one file: its number and name, and which
        places.
        """
        for i, file in enumerate(self._files):
            first, last = max(start, file.start), min(stop, self._find_end(i))
            for begin in range(first, last, ROWS_PER_READ):
                yield file.file, file.name, range(begin, min(begin + ROWS_PER_READ, last))

    def choose_formats(self, readers: Readers) -> dict[str, Format]:
        """The format of each file that has one, by name: of several the last row's."""
        formats: dict[str, Format] = {}
        for i, file in enumerate(self._files):
            # A file has few shapes, whatever rows it has.
            last: dict[int, int] = {}
            for place in range(file.start, self._find_end(i)):
                last[self.shapes[place]] = place
            for shape in sorted(last, key=last.__getitem__):
                format, _ = readers.shapes[shape]
                if format is not None:
                    formats[file.name] = format
        return formats

    def _find_end(self, i: int) -> int:
        if i + 1 < len(self._files):
            return self._files[i + 1].start
        return len(self)


def find_places(
    connection: Connection,
    name: str | None,
    wanted: RowQuery,
    claimed: Set[int] = frozenset(),
) -> BatchPlaces:
    """The places of the `wanted` rows (a query of their numbers) in an audit's source; None: in all
    sources. Rows that are `claimed` by others are left out.
    """
    placed = (
        select(places.c.file, places.c.position, places.c.row, PLACED_SHAPE)
        .join_from(places, rows, places.c.row == rows.c.row)
        .join(files, files.c.file == places.c.file)
        .outerjoin(variants, variants.c.variant == places.c.variant)
        .where(places.c.row.in_(wanted))
        .order_by(places.c.file, places.c.position)
    )
    known = select(files.c.file, files.c.name, files.c.gone_at)
    if name is not None:
        placed = placed.where(files.c.audit == name)
        known = known.where(files.c.audit == name)
    found: dict[int, _Columns] = defaultdict(_make_columns)
    # Of the query alone: options of a connection are there for all that it is asked later.
    streamed = connection.execute(placed.execution_options(yield_per=PLACES_PER_READ))
    for file, position, row, shape in streamed.tuples():
        if row in claimed:
            continue
        for column, value in zip(found[file], (row, position, shape), strict=True):
            column.append(value)
    of_files = [file for file in connection.execute(known).all() if file.file in found]
    _drop_moved(found, {file.file for file in of_files if file.gone_at is not None})
    batch = BatchPlaces()
    for file in sorted(of_files, key=lambda file: (file.name, file.file)):
        batch.add_file(file.file, file.name, found[file.file])
    return batch


def _make_columns() -> _Columns:
    return array("q"), array("q"), array("q")


def _drop_moved(found: dict[int, _Columns], gone: set[int]) -> None:
    """A row that moved is no copy of itself: places in files that are gone count only where it has
    no other.
    """
    left = set[int]()
    for file in gone:
        left.update(found[file][0])
    if not left:
        return
    current = set[int]()
    for file, (numbers, _, _) in found.items():
        if file not in gone:
            current.update(left.intersection(numbers))
    for file in gone:
        kept = _make_columns()
        for values in zip(*found[file], strict=True):
            if values[0] not in current:
                for column, value in zip(kept, values, strict=True):
                    column.append(value)
        found[file] = kept


def load_readers(connection: Connection) -> Readers:
    """How rows of each shape are read."""
    found = {}
    for shape in connection.execute(select(shapes)):
        found[shape.shape] = parse_format(shape.format), shape.schema
    return Readers(found, find_takeover(connection))


def read_places(
    connection: Connection, batch: BatchPlaces, readers: Readers, start: int, stop: int
) -> Iterator[tuple[RawRow, Draft]]:
    """The rows at the places from `start` to `stop` of a batch, and what is read of each.

    A row whose content is not the one that its id names has a problem: somebody changed its bytes
    since they were pulled, and what an audit finds in them would count for those. Raises
    OperationError where another row stands at a place than when the batch was chosen.
    """
    for file, name, chunk in batch.list_chunks(start, stop):
        yield from _read_chunk(connection, batch, readers, file, name, chunk)


def _read_chunk(
    connection: Connection, batch: BatchPlaces, readers: Readers, file: int, name: str, chunk: range
) -> Iterator[tuple[RawRow, Draft]]:
    positions = batch.positions[chunk.start : chunk.stop]
    query = (
        select(places.c.position, places.c.row, places.c.place)
        .add_columns(rows.c.id, rows.c.problem, rows.c.first_seen, PLACED_RAW, PLACED_SHAPE)
        .join_from(places, rows, places.c.row == rows.c.row)
        .outerjoin(variants, variants.c.variant == places.c.variant)
        .where(places.c.file == file, places.c.position.in_(positions.tolist()))
    )
    at = {row.position: row for row in connection.execute(query)}
    for i, position in zip(chunk, positions, strict=True):
        row = at.get(position)
        if row is None or row.row != batch.numbers[i]:
            raise OperationError(
                f"row {position} of {name} changed in the ledger while it was being read: "
                "run the audit again"
            )
        format, schema = readers.shapes[row.shape]
        raw = _decode(row, name, schema)
        draft = _make_draft(raw, format)
        if not readers.is_older(row.first_seen) and not _has_content(draft, raw):
            raw = replace(raw, record=None, problem=CHANGED_BYTES)
            draft = Draft(problem=CHANGED_BYTES)
        yield raw, draft


def _decode(row: Row[Any], name: str, schema: bytes | None) -> RawRow:
    record, problem = None, row.problem
    if problem is None:
        try:
            record = decode_row(row.raw, schema)
        except ValueError as error:
            # An earlier version read it.
            problem = str(error)
    return RawRow(
        name,
        row.position,
        place=f"{name}, {row.place}",
        record=record,
        problem=problem,
        raw=row.raw,
        content_id=bytes(row.id).hex(),
    )


def _has_content(draft: Draft, row: RawRow) -> bool:
    """Whether what is read of a row is what its id was computed of; of an unreadable or incomplete
    one nothing is.
    """
    example = draft.to_example(replace(row, content_id=None))
    return example is None or example.id == row.content_id


def _make_draft(row: RawRow, format: Format | None) -> Draft:
    if row.record is None or format is None:
        return Draft(problem=row.problem)
    return format.read(row.record)


class StoredRows(SourceRows):
    """The rows of a batch, read from the ledger whenever they are looked at.

    To be used while the batch's audit holds the lock on its name: another's pull of the same source
    may move rows. Raises OperationError where one did.
    """

    def __init__(self, ledger: Ledger, batch: BatchPlaces, readers: Readers) -> None:
        self._ledger, self._places, self._readers = ledger, batch, readers
        super().__init__(
            RowColumn(self, lambda read: read[0]),
            RowColumn(self, lambda read: read[1]),
            batch.choose_formats(readers),
        )

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[tuple[RawRow, Draft]]:
        return self.read(0, len(self))

    def read(self, start: int, stop: int) -> Iterator[tuple[RawRow, Draft]]:
        """The rows from `start` to `stop`."""
        for begin in range(start, stop, ROWS_PER_READ):
            end = min(begin + ROWS_PER_READ, stop)
            # A transaction of its own: whoever iterates may write to the ledger meanwhile.
            yield from self._ledger.retry(partial(self._read_some, begin, end))

    def _read_some(self, start: int, stop: int) -> list[tuple[RawRow, Draft]]:
        with self._ledger.read() as connection:
            return list(read_places(connection, self._places, self._readers, start, stop))
