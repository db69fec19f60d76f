"""Rows into the ledger: what a source holds that was not there before.

A file whose fingerprint is the one it was read with is not opened. Of one that grew, only what was
added is read; of one that changed, only what differs is written (`file_intake`). One that is gone
leaves its rows and places, and is marked.

A file goes in whole or not at all, in one transaction, which small files share. What was read of
them goes on record in it (`pull_records`): no file is ever in a state that the chain does not know.
"""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, select, update

from poisonwatch.failures import Attempts
from poisonwatch.ledger.copies import FileReading, count_copies
from poisonwatch.ledger.file_intake import (
    FORMAT_SAMPLE_ROWS,
    ROWS_PER_CHUNK,
    FileIngest,
    IngestStats,
)
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, now
from poisonwatch.ledger.pull_records import (
    FILES_PER_RECORD,
    PULL,
    RecordedFile,
    append_pull_records,
    read_recorded_files,
)
from poisonwatch.ledger.records import sign_record
from poisonwatch.ledger.shapes import ShapeTable
from poisonwatch.ledger.tables import files
from poisonwatch.ledger.transactions import is_given_up, retried
from poisonwatch.progress import Progress, silent
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import ReadAhead
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.open import open_source

__all__ = ["FORMAT_SAMPLE_ROWS", "ROWS_PER_CHUNK", "IngestStats", "ingest"]

LONGEST_GROUP_S = 0.5  # that files are taken into one transaction
PAUSE_S = 0.02  # between two transactions, for others that want to write


def ingest(
    ledger: Ledger,
    audit: str,
    source: SourceConfig,
    progress: Progress = silent,
    attempts: Attempts | None = None,
) -> IngestStats:
    """Bring the ledger up to what the source of an audit holds. `attempts` is told of a record that
    could not be signed.

    Raises SourceError where the source cannot be found or read: what was read of other files
    stays.
    """
    found = open_source(source)
    stats = IngestStats(passed_over=found.passed_over)
    readings: list[FileReading] = []
    told = attempts or Attempts()
    with ReadAhead() as ahead:
        left = _FilesLeft(found.units, audit, source, ahead)
        while left:
            group = _pull_group(ledger, audit, left, source, stats, progress, told)
            stats = group.stats
            readings += group.readings
            if group.failure is not None:
                raise group.failure
            if left and ledger.engine.dialect.name == "sqlite":
                # Whoever waits for the write lock asks for it now and then: it must be free for
                # longer than the moment between two transactions.
                time.sleep(PAUSE_S)
    _mark_gone(ledger, audit, {file.name for file in found.units}, told)
    # Where all that was read was new, nothing can be a copy.
    if stats.read > stats.new + stats.variants:
        stats.copies = _count_copies(ledger, audit, readings)
    return stats


@retried
def _count_copies(ledger: Ledger, audit: str, readings: Sequence[FileReading]) -> int:
    with ledger.read() as connection:
        return count_copies(connection, audit, readings)


@retried
def _pull_group(
    ledger: Ledger,
    audit: str,
    left: "_FilesLeft",
    source: SourceConfig,
    stats: IngestStats,
    progress: Progress,
    attempts: Attempts,
) -> "_FileGroup":
    """Take in the first of the files that are left, by one transaction."""
    # Of one that was lost nothing was taken, nor counted.
    left.put_back()
    counted = replace(stats, formats=dict(stats.formats))
    with ledger.write(repeatable=True) as connection:
        left.look_ahead(connection)
        group = _FileGroup(connection, audit, source, counted, progress)
        while left and not group.is_full:
            # An error in a file leaves those before it in.
            try:
                group.take(*left.pop())
            except BaseException as error:
                if not group.entries or is_given_up(error):
                    raise
                group.failure = error
                break
        _record_pull(connection, ledger, audit, group.entries, attempts)
    left.settle()
    return group


class _FilesLeft:
    """The files of a source that are still to be taken in, in order, each with what the ledger has
    of it. Those that must be read are fetched ahead.
    """

    def __init__(
        self, units: Sequence[SourceFile], audit: str, source: SourceConfig, ahead: ReadAhead
    ) -> None:
        self._units = deque(units)
        self._audit, self._source, self._ahead = audit, source, ahead
        self._next: deque[tuple[SourceFile, Row[Any] | None]] = deque()
        self._taken: list[tuple[SourceFile, Row[Any] | None]] = []

    def __bool__(self) -> bool:
        return bool(self._units or self._next)

    def look_ahead(self, connection: Connection) -> None:
        """Look up as many files as the next two groups may take."""
        while self._units and len(self._next) < 2 * FILES_PER_RECORD:
            some = list(islice(self._units, VALUES_PER_STATEMENT // 2))
            known = _find_files(connection, self._audit, [file.name for file in some])
            changed = []
            for file in some:
                self._units.popleft()
                self._next.append((file, known.get(file.name)))
                settings = _describe_reading(file.settle(self._source))
                if not _is_unchanged(file, known.get(file.name), settings):
                    changed.append(file)
            self._ahead.plan(changed)

    def pop(self) -> tuple[SourceFile, Row[Any] | None]:
        """The next file, one of those that were looked up."""
        file, known = self._next.popleft()
        self._taken.append((file, known))
        self._ahead.bring(file)
        return file, known

    def put_back(self) -> None:
        """What was taken since the last `settle` is to be taken again."""
        self._next.extendleft(reversed(self._taken))
        self._taken.clear()

    def settle(self) -> None:
        """What was taken is in the ledger."""
        self._taken.clear()


class _FileGroup:
    """Files that go in by one transaction: one that has many rows, or many that have few. A file of
    one row takes longer to commit, and to record, than to read.
    """

    def __init__(
        self,
        connection: Connection,
        audit: str,
        source: SourceConfig,
        stats: IngestStats,
        progress: Progress,
    ) -> None:
        self.connection, self.audit, self.source = connection, audit, source
        self.stats, self.progress = stats, progress
        self.readings: list[FileReading] = []
        self._shapes = ShapeTable(connection)
        # What goes on record of files that changed.
        self.entries: list[dict[str, Any]] = []
        # What ended it, once some files were in.
        self.failure: BaseException | None = None
        self._began = time.monotonic()
        self._files = self._rows = 0
        self._has_locked = False

    @property
    def is_full(self) -> bool:
        """Whether the transaction should end: others wait until they may write."""
        if not self._files:
            return False
        is_large = self._files >= FILES_PER_RECORD or self._rows >= ROWS_PER_CHUNK
        # On SQLite they wait in any case.
        has_locked = self._has_locked and self.connection.dialect.name == "postgresql"
        is_long = time.monotonic() - self._began >= LONGEST_GROUP_S
        return is_large or has_locked or is_long

    def take(self, file: SourceFile, known: Row[Any] | None) -> None:
        """Read a file, if it is not as it is `known`: all of it is in the ledger then, or
        nothing.
        """
        self.stats.files += 1
        self._files += 1
        settled = file.settle(self.source)
        read_settings = _describe_reading(settled)
        if _is_unchanged(file, known, read_settings):
            self.stats.unchanged += 1
            return
        incoming = FileIngest(
            self.connection,
            self.audit,
            file,
            source=settled,
            read_settings=read_settings,
            known=known,
            shapes=self._shapes,
        )
        # Until something is to be kept, an error takes the transaction with it.
        is_first = not self.readings
        with nullcontext() if is_first else self.connection.begin_nested():
            reading = incoming.run(self.stats, self.progress)
        self._rows += reading.rows
        self._has_locked |= incoming.has_locked
        self.readings.append(reading)
        # A file that was opened may be as it was.
        if known is None or self._recorded_file(file.name).is_changed_by(incoming.entry):
            self.entries.append(incoming.entry)

    def _recorded_file(self, name: str) -> RecordedFile:
        return self._recorded.get((self.audit, name), RecordedFile())

    @cached_property
    def _recorded(self) -> Mapping[tuple[str, str], RecordedFile]:
        """The files as the chain has them: looked up once a known file was opened."""
        return read_recorded_files(self.connection, self.audit)


def _record_pull(
    connection: Connection,
    ledger: Ledger,
    audit: str,
    entries: Sequence[Mapping[str, Any]],
    attempts: Attempts,
) -> None:
    """Put what was read of files on record, signed where there is a key. A signature that fails
    costs no row: the record stays unsigned, and `attempts` tells.
    """
    for number in append_pull_records(connection, PULL, audit, entries, {"audit": audit}):
        if ledger.signer is None:
            continue
        with attempts.part("the pull's record", "not signed"), connection.begin_nested():
            sign_record(connection, number, ledger.signer)


def _find_files(connection: Connection, audit: str, names: Sequence[str]) -> dict[str, Row[Any]]:
    """The files of an audit with these names, as the ledger has them, by name."""
    query = select(files).where(files.c.audit == audit, files.c.name.in_(names))
    return {row.name: row for row in connection.execute(query)}


def _describe_reading(settled: SourceConfig) -> str:
    """The settings that say how a file's rows are read, as JSON."""
    return json.dumps(settled.reading)


def _is_unchanged(file: SourceFile, known: Row[Any] | None, read_settings: str) -> bool:
    """Whether a file need not be opened: it is the one that was read, as it would be read now."""
    if known is None or file.fingerprint is None:
        return False
    is_same = known.fingerprint == file.fingerprint and known.reading == read_settings
    # One that was gone is opened, which marks it as there again.
    return bool(is_same and known.gone_at is None)


@retried
def _mark_gone(ledger: Ledger, audit: str, names: Set[str], attempts: Attempts) -> None:
    """Mark the files of an audit's source that are none of these any more."""
    here = select(files.c.file, files.c.name).where(
        files.c.audit == audit, files.c.gone_at.is_(None)
    )
    gone_at = now()
    with ledger.write() as connection:
        gone = [row for row in connection.execute(here) if row.name not in names]
        numbers = [row.file for row in gone]
        connection.execute(update(files).where(files.c.file.in_(numbers)).values(gone_at=gone_at))
        entries = [{"name": row.name, "gone_at": gone_at} for row in gone]
        _record_pull(connection, ledger, audit, entries, attempts)
