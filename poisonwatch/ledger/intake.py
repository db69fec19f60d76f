"""Rows into the ledger: what a source holds that was not there before.

A file whose fingerprint is the one it was read with is not opened. Of one that grew, only what was
added is read; of one that changed, only what differs is written. A file goes in whole or not at
all, in one transaction.

    the same content at another place     one row with one place more
    other content at a place              a new row; it replaces the old one, if that is nowhere
                                          else any more
    a file that is gone                   its rows and places stay, and it is marked
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from poisonwatch.examples import RawRow
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, insert_all, now
from poisonwatch.ledger.tables import files, places, rows, shapes
from poisonwatch.progress import Progress, silent
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import PassedOver, SourceFile
from poisonwatch.sources.formats import Format, choose_format
from poisonwatch.sources.open import open_source

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


def ingest(
    ledger: Ledger, audit: str, source: SourceConfig, progress: Progress = silent
) -> IngestStats:
    """Bring the ledger up to what the source of an audit holds.

    Raises SourceError where the source cannot be found or read: what was read of other files
    stays.
    """
    stats = IngestStats()
    read_settings = json.dumps(source.reading)
    found = open_source(source)
    stats.passed_over = found.passed_over
    for file in found.units:
        stats.files += 1
        # A transaction a file: an error in one leaves those before it in.
        with ledger.write() as connection:
            known = _find_file(connection, audit, file.name)
            if _is_unchanged(file, known, read_settings):
                stats.unchanged += 1
                continue
            reading = _FileIngest(
                connection, audit, file, source=source, read_settings=read_settings, known=known
            )
            reading.run(stats, progress)
    _mark_gone(ledger, audit, {file.name for file in found.units})
    return stats


def _find_file(connection: Connection, audit: str, name: str) -> Row[Any] | None:
    query = select(files).where(files.c.audit == audit, files.c.name == name)
    return connection.execute(query).one_or_none()


def _is_unchanged(file: SourceFile, known: Row[Any] | None, read_settings: str) -> bool:
    """Whether a file need not be opened: it is the one that was read, as it would be read now."""
    if known is None or file.fingerprint is None:
        return False
    is_same = known.fingerprint == file.fingerprint and known.reading == read_settings
    # One that was gone is opened, which marks it as there again.
    return bool(is_same and known.gone_at is None)


def _mark_gone(ledger: Ledger, audit: str, names: Set[str]) -> None:
    """Mark the files of an audit's source that are none of these any more."""
    here = select(files.c.file, files.c.name).where(
        files.c.audit == audit, files.c.gone_at.is_(None)
    )
    with ledger.write() as connection:
        gone = [row.file for row in connection.execute(here) if row.name not in names]
        connection.execute(update(files).where(files.c.file.in_(gone)).values(gone_at=now()))


@dataclass(frozen=True, slots=True)
class _IncomingRow:
    """A row on its way in: its content's id, and whether it could be read."""

    raw: RawRow
    id: bytes
    problem: str | None


class _FileIngest:
    """One file on its way into the ledger. `read_settings` are the settings that say how its rows
    are read, as JSON; `known` is the file as the ledger has it, None where it is new.
    """

    def __init__(
        self,
        connection: Connection,
        audit: str,
        file: SourceFile,
        source: SourceConfig,
        read_settings: str,
        known: Row[Any] | None,
    ) -> None:
        self.connection, self.file, self.source = connection, file, source
        self.audit, self.read_settings, self.known = audit, read_settings, known
        self.cursor: str | None = None
        # Read in another way, rows that were read before are others: all are read anew.
        if known is not None and known.reading == read_settings:
            self.cursor = known.mark
        self.format: Format | None = None
        self.edited: list[tuple[int, int]] = []  # the new row, and what was there before

    def run(self, stats: IngestStats, progress: Progress) -> None:
        """Read the file and write what is new."""
        number = self._find_or_add_file()
        count = 0
        chunks = batched(self.file.read(self.cursor), ROWS_PER_CHUNK)
        for chunk in progress(chunks, "pull", None, len):
            count += len(chunk)
            stats.new += self._write(number, [self._identify(row, chunk) for row in chunk])
        stats.read += count
        if self.format is not None:
            stats.formats[self.file.name] = self.format.explanation
        total = count
        if self.known is not None and self.file.continued:
            total += self.known.rows
        beyond = (places.c.file == number) & (places.c.position >= total)
        self.connection.execute(delete(places).where(beyond))
        # Once all places are written: a row may have moved to any of them.
        self._link_edits()
        values = {
            "fingerprint": self.file.fingerprint,
            "mark": self.file.cursor,
            "reading": self.read_settings,
            "rows": total,
            "read_at": now(),
            "gone_at": None,
        }
        self.connection.execute(update(files).where(files.c.file == number).values(values))

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
        if row.record is None:
            problem = row.problem or ""
            id = _hash_parts(b"unreadable", row.raw, problem.encode())
            return _IncomingRow(row, id, row.problem)
        if self.format is None:
            readable = [other.record for other in chunk if other.record is not None]
            sample = readable[:FORMAT_SAMPLE_ROWS]
            self.format = choose_format(self.source, sample, self.file.name)
        example = self.format.read(row.record).to_example(row, self.format)
        if example is None:
            return _IncomingRow(row, _hash_parts(b"incomplete", row.raw), None)
        return _IncomingRow(row, bytes.fromhex(example.id), None)

    def _write(self, number: int, chunk: list[_IncomingRow]) -> int:
        """Insert contents that are not there, and places that are not as they were; returns how
        many contents were new.
        """
        known = dict(self._find_rows({row.id for row in chunk}))
        # Of a content that comes twice, the first row.
        new = {row.id: row for row in reversed(chunk) if row.id not in known}
        if new:
            self._insert_contents(list(reversed(new.values())))
            known |= dict(self._find_rows(set(new)))
        self._move_places(number, chunk, known, new.keys())
        return len(new)

    def _insert_contents(self, new: Sequence[_IncomingRow]) -> None:
        shape, first_seen = self._find_or_add_shape(), now()
        values = []
        for row in new:
            value = {
                "id": row.id,
                "raw": row.raw.raw,
                "digest": hashlib.sha256(row.raw.raw).digest(),
                "shape": shape,
                "problem": row.problem,
                "status": "pending",
                "first_seen": first_seen,
            }
            values.append(value)
        self.connection.execute(insert(rows), values)

    def _move_places(
        self,
        number: int,
        chunk: Sequence[_IncomingRow],
        known: Mapping[bytes, int],
        new: Collection[bytes],
    ) -> None:
        """Write the places of a chunk that are not as they were. `known` are the numbers of its
        rows by id, `new` the ids that the ledger had not.
        """
        span = places.c.position.between(chunk[0].raw.position, chunk[-1].raw.position)
        query = select(places.c.position, places.c.row).where(places.c.file == number, span)
        before = dict(self.connection.execute(query).tuples().all())
        name = f"{self.file.name}, "
        occupied: list[int] = []
        values = []
        for row in chunk:
            position, row_number = row.raw.position, known[row.id]
            if before.get(position) == row_number:
                continue
            if position in before:
                occupied.append(position)
                # A content that was there already moved here; only a new one can be an edit.
                if row.id in new:
                    self.edited.append((row_number, before[position]))
            place = row.raw.place.removeprefix(name)
            values.append({"file": number, "position": position, "row": row_number, "place": place})
        # (file, position) is the key: the old place goes first.
        self._delete_places(number, occupied)
        insert_all(self.connection, places, values)

    def _find_rows(self, ids: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
        # Sorted: neighbours in the index on ids are on the same page of it.
        for some in batched(sorted(ids), VALUES_PER_STATEMENT):
            query = select(rows.c.id, rows.c.row).where(rows.c.id.in_(some))
            for id, row in self.connection.execute(query):
                yield bytes(id), row

    def _delete_places(self, number: int, positions: Sequence[int]) -> None:
        for some in batched(positions, VALUES_PER_STATEMENT):
            here = (places.c.file == number) & places.c.position.in_(some)
            self.connection.execute(delete(places).where(here))

    def _find_or_add_shape(self) -> int:
        """The number of this file's format and schema, by which stored bytes are read again."""
        settings = None
        if self.format is not None:
            settings = self.format.settings
        format, schema = json.dumps(settings), self.file.schema
        # A schema is too long to be a unique column itself.
        digest = _hash_parts(format.encode(), schema or b"").hex()
        query = select(shapes.c.shape).where(shapes.c.digest == digest)
        found = self.connection.execute(query).scalar_one_or_none()
        if found is None:
            values = {"digest": digest, "format": format, "schema": schema}
            added = insert(shapes).values(values).returning(shapes.c.shape)
            found = self.connection.execute(added).scalar_one()
        return int(found)

    def _link_edits(self) -> None:
        """A new row replaces what was in its place before, unless that only moved."""
        for some in batched(self.edited, VALUES_PER_STATEMENT):
            old = [before for _, before in some]
            query = select(places.c.row).where(places.c.row.in_(old)).distinct()
            moved = set(self.connection.execute(query).scalars())
            for row, before in some:
                if before not in moved:
                    replaced = update(rows).where(rows.c.row == row).values(replaces=before)
                    self.connection.execute(replaced)


def _hash_parts(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()
