"""One file on its way into the ledger: its rows as contents, bytes and places.

the same content at another place     one row with one place more
a known content in other bytes        one variant more of its row, which is not audited again
other content at a place              a new row; it replaces the old one, if that is nowhere
                                      else any more
"""

import hashlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, insert, select, update

from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Format, choose_format
from poisonwatch.ledger.copies import FileReading
from poisonwatch.ledger.ledger import (
    VALUES_PER_STATEMENT,
    batched,
    insert_all,
    insert_missing,
    now,
    reserve_numbers,
)
from poisonwatch.ledger.placed_rows import remember_last_bytes
from poisonwatch.ledger.pull_records import PlaceDigest, describe_file
from poisonwatch.ledger.records import lock_chain
from poisonwatch.ledger.shapes import ShapeTable, load_format
from poisonwatch.ledger.tables import files, places, rows
from poisonwatch.ledger.variants import KnownRow, VariantKey, VariantTable, hash_raw
from poisonwatch.progress import Progress
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import PassedOver, SourceFile, batch_by_size

ROWS_PER_CHUNK = 2000  # rows that are looked up and written at a time
FORMAT_SAMPLE_ROWS = 50  # rows that a file's format is recognised by


@dataclass(slots=True)
class IngestStats:
    """What a pull met: `read` rows, of which `new` were never seen; `unchanged` files were not
    opened. `formats` in words, by file.

    `variants` are bytes that were never seen, of contents that were; `copies` are rows of these
    files whose bytes stand at an earlier place of the source, too. `passed_over` lies in the source
    and is not read.
    """

    read: int = 0
    new: int = 0
    variants: int = 0
    copies: int = 0
    files: int = 0
    unchanged: int = 0
    formats: dict[str, str] = field(default_factory=dict)
    passed_over: Sequence[PassedOver] = ()


class _IncomingRow(NamedTuple):
    """A row on its way in: its content's id, the SHA-256 of its bytes, and whether it could be
    read.
    """

    raw: RawRow
    id: bytes
    digest: bytes
    problem: str | None


# What stands at a place: the number of a row, and of a variant where it is not the row's own bytes.
_Placed = tuple[int, int | None]


class FileIngest:
    """One file on its way into the ledger. `read_settings` are the settings that say how its rows
    are read, as JSON; `known` is the file as the ledger has it, None where it is new. Files of one
    transaction share its `shapes`.
    """

    def __init__(
        self,
        connection: Connection,
        audit: str,
        file: SourceFile,
        source: SourceConfig,
        read_settings: str,
        known: Row[Any] | None,
        shapes: ShapeTable,
    ) -> None:
        self.connection, self.file, self.source = connection, file, source
        self.shapes = shapes
        self.audit, self.read_settings, self.known = audit, read_settings, known
        self.cursor: str | None = None
        # Read in another way, rows that were read before are others: all are read anew.
        if known is not None and known.reading == read_settings:
            self.cursor = known.mark
        self.format: Format | None = None
        # What stands at the places that are read, and what goes on record of the file with it.
        self.digest = PlaceDigest()
        self.entry: dict[str, Any] = {}
        # Whether others have to wait for the transaction before they append to the chain.
        self.has_locked = False
        # Pairs: the new row, and what was there before. Of millions of rows, each may be one.
        self.edited = array("q")

    @cached_property
    def variants(self) -> VariantTable:
        """Known once the first row is read."""
        return VariantTable(self.connection, self.shapes, self.file.schema, self._find_or_add_shape)

    def run(self, stats: IngestStats, progress: Progress) -> FileReading:
        """Read the file and write what is new; returns what was read."""
        number = self._find_or_add_file()
        count = new = 0
        chunks = batch_by_size(self.file.read(self.cursor), ROWS_PER_CHUNK)
        for chunk in progress(chunks, "pull", None, len):
            count += len(chunk)
            identified = [self._identify(row, chunk) for row in chunk]
            self.digest.add([(row.raw.position, row.id, row.digest) for row in identified])
            new += self._write(number, identified)
        stats.read += count
        stats.new += new
        stats.variants += self.variants.added
        if self.format is not None:
            stats.formats[self.file.name] = self.file.explain_reading(self.format.explanation)
        start, shape = 0, None
        if self.known is not None and self.file.continued:
            start, shape = self.known.rows, self.known.shape
        if self.format is not None:
            shape = self._find_or_add_shape()
        self._finish(number, start, start + count, shape)
        return FileReading(number, self.file.name, start, count)

    def _finish(self, number: int, start: int, total: int, shape: int | None) -> None:
        """The file is read from `start` on, has `total` rows, and they were read by this shape."""
        beyond = (places.c.file == number) & (places.c.position >= total)
        # A new file has no other places than those that were just written.
        if self.known is not None and self._is_any_place(beyond):
            self._remove_places(beyond)
        # Once all places are written: a row may have moved to any of them.
        self._link_edits()
        values = {
            "fingerprint": self.file.fingerprint,
            "mark": self.file.cursor,
            "reading": self.read_settings,
            "rows": total,
            "read_at": now(),
            "gone_at": None,
            "shape": shape,
        }
        self.connection.execute(update(files).where(files.c.file == number).values(values))
        digest = None
        if shape is not None:
            digest = self.shapes.digest(shape)
        said = describe_file({**values, "shape": digest})
        places_read = {"from": start, "places": self.digest.hexdigest()}
        self.entry = {"name": self.file.name, **said, **places_read}

    def _find_or_add_file(self) -> int:
        if self.known is not None:
            return int(self.known.file)
        values = {
            "audit": self.audit,
            "name": self.file.name,
            "reading": self.read_settings,
            "rows": 0,
            "read_at": now(),
        }
        added = insert(files).values(values).returning(files.c.file)
        return int(self.connection.execute(added).scalar_one())

    def _identify(self, row: RawRow, chunk: Sequence[RawRow]) -> _IncomingRow:
        """The row by its content; by its bytes where it has none that can be read."""
        digest = hash_raw(row.raw)
        if row.record is None:
            problem = row.problem or ""
            id = _hash_parts(b"unreadable", row.raw, problem.encode())
            return _IncomingRow(row, id, digest, row.problem)
        if self.format is None:
            self.format = self._find_earlier_format() or self._choose_format(chunk)
        example = self.format.read(row.record).to_example(row)
        if example is None:
            return _IncomingRow(row, _hash_parts(b"incomplete", row.raw), digest, None)
        return _IncomingRow(row, bytes.fromhex(example.id), digest, None)

    def _find_earlier_format(self) -> Format | None:
        """The format of the rows before these, if this reading goes on after them. By their first
        rows alone, the new ones might be read as others than when the file is read whole.
        """
        if self.known is None or not self.file.continued:
            return None
        return load_format(self.connection, self.known.shape)

    def _choose_format(self, chunk: Sequence[RawRow]) -> Format:
        readable = [row.record for row in chunk if row.record is not None]
        return choose_format(self.source, readable[:FORMAT_SAMPLE_ROWS], self.file.name)

    def _write(self, number: int, chunk: list[_IncomingRow]) -> int:
        """Insert contents and variants that are not there, and places that are not as they were;
        returns how many contents were new.
        """
        known = self._find_rows({row.id for row in chunk})
        new: dict[bytes, _IncomingRow] = {}
        for row in chunk:
            if row.id not in known:
                # Of a content that comes twice, the first row.
                new.setdefault(row.id, row)
        if new:
            known |= self._insert_contents(new)
        placed = self._find_or_add_variants(chunk, known)
        self._move_places(number, chunk, placed, new.keys())
        return len(new)

    def _find_or_add_variants(
        self, chunk: Sequence[_IncomingRow], known: Mapping[bytes, KnownRow]
    ) -> list[_Placed]:
        """What stands at the place of each row."""
        wanted: dict[VariantKey, bytes] = {}
        for row in chunk:
            content = known[row.id]
            if not self.variants.is_own(content, row.digest):
                wanted.setdefault((content.row, row.digest), row.raw.raw)
        # The row's own bytes are none of them.
        found = self.variants.find_or_add(wanted)
        placed = []
        for row in chunk:
            content = known[row.id]
            placed.append((content.row, found.get((content.row, row.digest))))
        return placed

    def _insert_contents(self, new: dict[bytes, _IncomingRow]) -> dict[bytes, KnownRow]:
        """The rows of new contents. One that another audit has just brought in is none of the `new`
        any more.
        """
        shape, first_seen = self._find_or_add_shape(), now()
        numbers = reserve_numbers(self.connection, rows.c.row, len(new))
        inserted = {}
        values = []
        for row, number in zip(new.values(), numbers, strict=True):
            value = {
                "row": number,
                "id": row.id,
                "raw": row.raw.raw,
                "digest": row.digest,
                "shape": shape,
                "problem": row.problem,
                "status": "pending",
                "first_seen": first_seen,
            }
            values.append(value)
            inserted[row.id] = KnownRow(number, row.digest, shape)
        for id in insert_missing(self.connection, rows, rows.c.id, values):
            del new[id], inserted[id]
            inserted |= self._find_rows({id})
        return inserted

    def _move_places(
        self,
        number: int,
        chunk: Sequence[_IncomingRow],
        placed: Sequence[_Placed],
        new: Collection[bytes],
    ) -> None:
        """Write the places of a chunk that are not as they were. `placed` is what stands at each,
        `new` the ids that the ledger had not.
        """
        before = self._find_placed(number, chunk[0].raw.position, chunk[-1].raw.position)
        name = f"{self.file.name}, "
        occupied: list[int] = []
        values = []
        for row, here in zip(chunk, placed, strict=True):
            position = row.raw.position
            there = before.get(position)
            if there == here:
                continue
            if there is not None:
                occupied.append(position)
                # A content that was there already moved here; only a new one can be an edit.
                if row.id in new:
                    self.edited.extend((here[0], there[0]))
            place = row.raw.place.removeprefix(name)
            value = {"file": number, "position": position, "place": place}
            values.append(value | {"row": here[0], "variant": here[1]})
        # (file, position) is the key: the old place goes first.
        self._delete_places(number, occupied)
        insert_all(self.connection, places, values)

    def _find_placed(self, number: int, first: int, last: int) -> dict[int, _Placed]:
        """What stood at the positions of a file from `first` to `last` before it was read."""
        if self.known is None:
            return {}
        span = places.c.position.between(first, last)
        columns = places.c.position, places.c.row, places.c.variant
        query = select(*columns).where(places.c.file == number, span)
        found = {}
        for position, row, variant in self.connection.execute(query).tuples().all():
            found[position] = row, variant
        return found

    def _find_rows(self, ids: Collection[bytes]) -> dict[bytes, KnownRow]:
        columns = rows.c.id, rows.c.row, rows.c.digest, rows.c.shape
        found = {}
        # Sorted: neighbours in the index on ids are on the same page of it.
        for some in batched(sorted(ids), VALUES_PER_STATEMENT):
            query = select(*columns).where(rows.c.id.in_(some))
            for id, row, digest, shape in self.connection.execute(query).tuples().all():
                found[bytes(id)] = KnownRow(row, bytes(digest), shape)
        return found

    def _is_any_place(self, which: ColumnElement[bool]) -> bool:
        return bool(self.connection.execute(select(exists().where(which))).scalar_one())

    def _delete_places(self, number: int, positions: Sequence[int]) -> None:
        for some in batched(positions, VALUES_PER_STATEMENT):
            self._remove_places((places.c.file == number) & places.c.position.in_(some))

    def _remove_places(self, which: ColumnElement[bool]) -> None:
        # What follows changes rows, and the record is appended later (`lock_chain`).
        lock_chain(self.connection)
        self.has_locked = True
        remember_last_bytes(self.connection, which)
        self.connection.execute(delete(places).where(which))

    def _find_or_add_shape(self) -> int:
        return self.shapes.find_or_add(self.format, self.file.schema)

    def _link_edits(self) -> None:
        """A new row replaces what was in its place before, unless that only moved."""
        numbers = iter(self.edited)
        for some in batched(zip(numbers, numbers, strict=True), VALUES_PER_STATEMENT):
            old = [before for _, before in some]
            query = select(places.c.row).where(places.c.row.in_(old)).distinct()
            moved = set(self.connection.execute(query).scalars())
            for row, before in some:
                if before not in moved:
                    replaced = update(rows).where(rows.c.row == row).values(replaces=before)
                    self.connection.execute(replaced)


def _hash_parts(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()
