"""Rows into the ledger: what a source holds that was not there before.

A file whose fingerprint is the one it was read with is not opened. Of one that grew, only what was
added is read; of one that changed, only what differs is written. A file goes in whole or not at
all, in one transaction.

    the same content at another place     one row with one place more
    other content at a place              a new row; it replaces the old one, if that stands nowhere else any more
    a file that is gone                   its rows and places stay, and it is marked
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from poisonwatch.config import SourceConfig
from poisonwatch.examples import RawRow
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, now
from poisonwatch.ledger.tables import files, places, rows, shapes
from poisonwatch.progress import Progress, silent
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.formats import Format, choose_format
from poisonwatch.sources.open import open_source

ROWS_PER_CHUNK = 2000  # rows that are looked up and written at a time
FORMAT_SAMPLE_ROWS = 50  # rows that tell a file's format


@dataclass(slots=True)
class IngestStats:
    """What a pull met: `read` rows, of which `new` were never seen; `unchanged` files were not
    opened. `formats` in words, by file.
    """

    read: int = 0
    new: int = 0
    files: int = 0
    unchanged: int = 0
    formats: dict[str, str] = field(default_factory=dict)


def ingest(
    ledger: Ledger, audit: str, source: SourceConfig, progress: Progress = silent
) -> IngestStats:
    """Bring the ledger up to what the source of an audit holds.

    Raises SourceError where the source cannot be found or read: what was taken of other files
    stays.
    """
    taken = IngestStats()
    reading = json.dumps([source.format, source.fields, source.template])
    found = open_source(source)
    for file in found:
        taken.files += 1
        with ledger.write() as connection:
            known = _find_file(connection, audit, file.name)
            unread = known is None or known.reading != reading or known.gone_at is not None
            if (
                known is not None
                and not unread
                and file.fingerprint is not None
                and known.fingerprint == file.fingerprint
            ):
                taken.unchanged += 1
                continue
            _FileIngest(connection, audit, file, source, reading, known).run(taken, progress)
    with ledger.write() as connection:
        names = {file.name for file in found}
        left = connection.execute(
            select(files.c.file, files.c.name).where(
                files.c.audit == audit, files.c.gone_at.is_(None)
            )
        )
        gone = [row.file for row in left if row.name not in names]
        connection.execute(update(files).where(files.c.file.in_(gone)).values(gone_at=now()))
    return taken


def _find_file(connection: Connection, audit: str, name: str) -> Any:
    return connection.execute(
        select(files).where(files.c.audit == audit, files.c.name == name)
    ).one_or_none()


@dataclass(frozen=True, slots=True)
class _IncomingRow:
    """A row on its way in: its content's id, and whether it could be read."""

    raw: RawRow
    id: bytes
    problem: str | None


class _FileIngest:
    """One file on its way into the ledger."""

    def __init__(
        self,
        connection: Connection,
        audit: str,
        file: SourceFile,
        source: SourceConfig,
        reading: str,
        known: Any,
    ) -> None:
        self.connection, self.file, self.source = connection, file, source
        self.audit, self.reading, self.known = audit, reading, known
        self.mark = known.mark if known is not None and known.reading == reading else None
        self.format: Format | None = None
        self.edited: list[tuple[int, int]] = []  # the new row, and what stood there before

    def run(self, taken: IngestStats, progress: Progress) -> None:
        """Read the file and write what is new."""
        number = self._number()
        count = 0
        for chunk in progress(
            batched(self.file.read(self.mark), ROWS_PER_CHUNK), "pull", None, len
        ):
            count += len(chunk)
            taken.new += self._write(number, [self._identify(row, chunk) for row in chunk])
        taken.read += count
        if self.format is not None:
            taken.formats[self.file.name] = self.format.explanation
        total = count + (self.known.rows if self.known is not None and self.file.continued else 0)
        self.connection.execute(
            delete(places).where(places.c.file == number, places.c.position >= total)
        )
        self._link_edits()
        self.connection.execute(
            update(files)
            .where(files.c.file == number)
            .values(
                fingerprint=self.file.fingerprint,
                mark=self.file.mark,
                reading=self.reading,
                rows=total,
                read_at=now(),
                gone_at=None,
            )
        )

    def _number(self) -> int:
        if self.known is not None:
            return int(self.known.file)
        values = {
            "audit": self.audit,
            "name": self.file.name,
            "reading": self.reading,
            "rows": 0,
            "read_at": now(),
        }
        return int(
            self.connection.execute(
                insert(files).values(values).returning(files.c.file)
            ).scalar_one()
        )

    def _identify(self, row: RawRow, chunk: Sequence[RawRow]) -> _IncomingRow:
        """The row by its content; by its bytes where it has none that can be read."""
        if row.record is None:
            return _IncomingRow(
                row, _hash_parts(b"unreadable", row.raw, (row.problem or "").encode()), row.problem
            )
        if self.format is None:
            records = [r.record for r in chunk if r.record is not None][:FORMAT_SAMPLE_ROWS]
            self.format = choose_format(self.source, records, self.file.name)
        example = self.format.read(row.record).example(row, self.format)
        return _IncomingRow(
            row,
            _hash_parts(b"incomplete", row.raw) if example is None else bytes.fromhex(example.id),
            None,
        )

    def _write(self, number: int, chunk: list[_IncomingRow]) -> int:
        """Insert contents that are not there, and places that are not as they were; returns how
        many contents were new.
        """
        known = dict(self._find_rows({row.id for row in chunk}))
        first = {row.id: row for row in reversed(chunk) if row.id not in known}
        if first:
            shape, at = self._shape(), now()
            values = [
                {
                    "id": row.id,
                    "raw": row.raw.raw,
                    "digest": hashlib.sha256(row.raw.raw).digest(),
                    "shape": shape,
                    "problem": row.problem,
                    "status": "pending",
                    "first_seen": at,
                }
                for row in reversed(first.values())
            ]
            self.connection.execute(insert(rows), values)
            known |= dict(self._find_rows(set(first)))
        span = places.c.position.between(chunk[0].raw.position, chunk[-1].raw.position)
        stood = dict(
            self.connection.execute(
                select(places.c.position, places.c.row).where(places.c.file == number, span)
            )
            .tuples()
            .all()
        )
        moved = [row for row in chunk if stood.get(row.raw.position) not in (None, known[row.id])]
        self.edited += [
            (known[row.id], stood[row.raw.position]) for row in moved if row.id in first
        ]
        self._remove(number, [row.raw.position for row in moved])
        new = [row for row in chunk if stood.get(row.raw.position) != known[row.id]]
        if new:
            name = f"{self.file.name}, "
            values = [
                {
                    "file": number,
                    "position": r.raw.position,
                    "row": known[r.id],
                    "place": r.raw.place.removeprefix(name),
                }
                for r in new
            ]
            self.connection.execute(insert(places), values)
        return len(first)

    def _find_rows(self, ids: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
        for some in batched(sorted(ids), VALUES_PER_STATEMENT):
            for id, row in self.connection.execute(
                select(rows.c.id, rows.c.row).where(rows.c.id.in_(some))
            ):
                yield bytes(id), row

    def _remove(self, number: int, positions: Sequence[int]) -> None:
        for some in batched(positions, VALUES_PER_STATEMENT):
            self.connection.execute(
                delete(places).where(places.c.file == number, places.c.position.in_(some))
            )

    def _shape(self) -> int:
        """The number of this file's format and schema, by which stored bytes are read again."""
        format, schema = (
            json.dumps(None if self.format is None else self.format.settings),
            self.file.schema,
        )
        digest = _hash_parts(format.encode(), schema or b"").hex()
        found = self.connection.execute(
            select(shapes.c.shape).where(shapes.c.digest == digest)
        ).scalar_one_or_none()
        if found is None:
            values = {"digest": digest, "format": format, "schema": schema}
            found = self.connection.execute(
                insert(shapes).values(values).returning(shapes.c.shape)
            ).scalar_one()
        return int(found)

    def _link_edits(self) -> None:
        """A new row replaces what stood in its place before, unless that only moved."""
        for some in batched(self.edited, VALUES_PER_STATEMENT):
            old = [before for _, before in some]
            still = set(
                self.connection.execute(
                    select(places.c.row).where(places.c.row.in_(old)).distinct()
                ).scalars()
            )
            links = [(row, before) for row, before in some if before not in still]
            for row, before in links:
                self.connection.execute(
                    update(rows).where(rows.c.row == row).values(replaces=before)
                )


def _hash_parts(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()
