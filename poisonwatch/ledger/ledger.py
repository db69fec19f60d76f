"""The ledger: every row ever seen, what became of it, and what each audit found.

One audit at a time works on a ledger. What it will audit is what the ledger says no audit has
covered under the same model and sentinels; what it found is written in one transaction. Between
these two nothing is written, so that an audit that dies leaves all its rows to the next one:

    running      an audit is at work, or died
    committed    its results are in the ledger; its run directory is complete, but may still be
                 called `<run_dir>.part`
    finished     all is in place
    interrupted  it died before it was committed

Here are opening, transactions, the lock and recovery; `batches` reads rows out, `intake` brings
them in, `audits` opens and commits an audit.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy import Column, Connection, Table, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.atomic import get_part_path
from poisonwatch.attestation.signer import Signer
from poisonwatch.errors import InputError, OperationError
from poisonwatch.ledger.records import append_adopted_version
from poisonwatch.ledger.tables import LOCK_WAIT_S, audits, connect_database, versions
from poisonwatch.permissions import read_umask
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.secrets import Secrets, conceal
from poisonwatch.text.sqlite_files import find_sqlite_file

T = TypeVar("T")
LEDGER_LOCK_NUMBER = 0x706F69736F6E  # PostgreSQL's advisory lock of this name
LOCK_POLL_S = 1.0
VALUES_PER_STATEMENT = 500  # SQLite before 3.32 takes no more than 999


def now() -> str:
    """The time as it is written in the ledger."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """The items, n at a time."""
    rest = iter(items)
    while some := list(islice(rest, n)):
        yield some


def insert_all(connection: Connection, table: Table, values: Sequence[dict[str, Any]]) -> None:
    """Insert these rows, if any: SQLAlchemy takes an empty list for a row of defaults."""
    if values:
        connection.execute(insert(table), values)


def reserve_numbers(connection: Connection, column: Column[int], count: int) -> Sequence[int]:
    """Numbers for so many new rows of a table, whose key is `column`, in a transaction that writes:
    known beforehand, they need not be looked up.
    """
    if connection.dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(f'"{column.table.name}"', column.name)
        series = func.generate_series(1, count).table_valued("n")
        return (
            connection.execute(select(func.nextval(sequence)).select_from(series)).scalars().all()
        )
    # The transaction holds the write lock (`Ledger.write`).
    last = connection.execute(select(func.max(column))).scalar_one() or 0
    return range(last + 1, last + 1 + count)


@dataclass(frozen=True, slots=True)
class Version:
    """What a result holds for: SHA-256 of the model, of the sentinels, of how the model reads rows,
    and the settings that shape verdicts, as JSON (`verdict_settings`; None: nobody recorded it).

    `reads_as_before`: the reading is taken for the one of results without any, which an earlier
    version of this library recorded.
    """

    model: str
    sentinels: str
    reading: str | None = None
    reads_as_before: bool = False
    settings: str | None = None


def find_or_add_version(
    connection: Connection, version: Version, signer: Signer | None = None
) -> int:
    """The number of a version. Results of no recorded reading are from now on those of the first
    that is taken for it: the chain of records says so.
    """
    found = _find_version(connection, version, signer)
    if found is None:
        values = {
            "model": version.model,
            "sentinels": version.sentinels,
            "reading": version.reading,
            "settings": version.settings,
        }
        added = insert(versions).values(values).returning(versions.c.version)
        found = connection.execute(added).scalar_one()
    return int(found)


def find_covering_versions(
    connection: Connection, version: Version, signer: Signer | None = None
) -> list[int]:
    """The numbers of the versions whose results need not be found again under this one: its own,
    which is added where it is new, and that of results whose settings nobody recorded.
    """
    covering = [find_or_add_version(connection, version, signer)]
    if version.settings is not None:
        before = _find_version(connection, replace(version, settings=None), signer)
        if before is not None:
            covering.append(before)
    return covering


def _find_version(connection: Connection, version: Version, signer: Signer | None) -> int | None:
    """The number of a version that is there, or is taken for it from now on."""
    same = (versions.c.model == version.model) & (versions.c.sentinels == version.sentinels)
    same &= versions.c.settings.is_not_distinct_from(version.settings)
    has_reading = versions.c.reading.is_not_distinct_from(version.reading)
    query = select(versions.c.version).where(same, has_reading)
    found = connection.execute(query).scalar_one_or_none()
    if found is None and version.reads_as_before:
        unrecorded = update(versions).where(same, versions.c.reading.is_(None))
        taken = unrecorded.values(reading=version.reading).returning(versions.c.version)
        found = connection.execute(taken).scalar_one_or_none()
        if found is not None:
            append_adopted_version(connection, asdict(version), signer)
    return found


@dataclass(frozen=True, slots=True)
class _FileIdentity:
    """Which file a path leads to: two files of one name differ in it."""

    path: Path
    device: int = 0
    inode: int = 0


def _identify_file(path: Path) -> _FileIdentity:
    """The file's identity; of zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return _FileIdentity(path)
    return _FileIdentity(path, found.st_dev, found.st_ino)


class Ledger:
    """An open ledger. Use `Ledger.at(url)` in a `with`. What is recorded in it is signed by the
    `signer`, if it has one.
    """

    def __init__(self, url: str, wait_s: float = LOCK_WAIT_S, signer: Signer | None = None) -> None:
        self.url = url
        self.engine = connect_database(url, wait_s)
        self.signer = signer
        self._file: _FileIdentity | None = None
        self._held: Connection | None = None
        if self.engine.dialect.name == "sqlite":
            with self.read() as connection:
                # SQLite's own word: a URL may name the file in many ways.
                # As bytes: a folder's name need not be UTF-8.
                query = "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"
                path = os.fsdecode(connection.exec_driver_sql(query).scalar_one() or b"")
            # A ledger in memory has none.
            if path:
                self._file = _identify_file(Path(path))

    @classmethod
    @contextmanager
    def at(
        cls, url: str, wait_s: float = LOCK_WAIT_S, signer: Signer | None = None
    ) -> Iterator["Ledger"]:
        """Open the ledger at a SQLAlchemy URL, making it where there is none; `wait_s` and errors
        are those of `connect_database`.
        """
        ledger = cls(url, wait_s, signer)
        try:
            yield ledger
        except SQLAlchemyError as error:
            # SQLAlchemy's own words repeat statement and values, which hold rows.
            cause = Secrets(servers=[url]).conceal_error(getattr(error, "orig", None) or error)
            # Not chained: whoever logs it would log the statement.
            raise OperationError(f"the ledger at {conceal(url, url)} failed: {cause}") from None
        finally:
            ledger.engine.dispose()

    @classmethod
    @contextmanager
    def existing(
        cls, url: str, wait_s: float = LOCK_WAIT_S, signer: Signer | None = None
    ) -> Iterator["Ledger"]:
        """Open a ledger that is there already. Raises InputError where its SQLite file is not, and
        what `at` does.
        """
        address = parse_database_url(url, "state")
        is_sqlite = address.get_backend_name() == "sqlite"
        file = find_sqlite_file(address.database) or Path()
        if is_sqlite and not file.is_file():
            raise InputError(
                f"there is no ledger at {conceal(url, url)}: no audit has run; "
                "run `poisonwatch audit` first"
            )
        with cls.at(url, wait_s, signer) as ledger:
            yield ledger

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the ledger, whatever others write meanwhile."""
        if self._held is not None:
            yield self._held
            return
        engine = self.engine
        # On SQLite every transaction sees one; on PostgreSQL, unless asked, each statement another.
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.begin() as connection:
            yield connection

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Have everything that is read until the block ends be of one state of the ledger: whoever
        changes it and back between two questions changes neither answer. For one thread.
        """
        with self.read() as connection:
            self._held = connection
            try:
                yield
            finally:
                self._held = None

    @contextmanager
    def write(self, repeatable: bool = False) -> Iterator[Connection]:
        """One transaction: all of it or nothing, and on the disk once it ends.

        One that is `repeatable` does not wait for the disk: what a machine that loses power forgets
        of it is done again, as a pull is. Raises OperationError where the ledger's file was deleted
        or replaced since it was opened.
        """
        options = {"writing": True, "repeatable": repeatable}
        with self.engine.execution_options(**options).begin() as connection:
            yield connection
            self._require_file()
        # Deleted between the two, it took the transaction with it.
        self._require_file()

    def _require_file(self) -> None:
        """Raise OperationError where the path does not lead to the file that was opened: what is
        written goes to a file that nobody will find.
        """
        if self._file is not None and _identify_file(self._file.path) != self._file:
            raise OperationError(
                f"the ledger at {conceal(self.url)} was deleted or replaced while it was open: "
                "nothing was recorded in what is there now; put the file back, or run again"
            )

    @contextmanager
    def lock(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only audit on this ledger; `on_wait` is called once, if there is another. The lock
        of a process that dies is free.
        """
        with self._pick_lock(on_wait):
            self._recover()
            yield

    def is_locked(self) -> bool:
        """Whether an audit holds the lock at this moment; asked without taking it."""
        if self.engine.dialect.name == "postgresql":
            held = text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND "
                "database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
                "AND (classid::bigint << 32) + objid::bigint = :number"
            )
            with self.read() as connection:
                return bool(connection.execute(held, {"number": LEDGER_LOCK_NUMBER}).scalar_one())
        path = Path(f"{self.engine.url.database}.lock")
        # None that ever was locked has one, nor has a ledger in memory.
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _pick_lock(self, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        if self.engine.dialect.name == "postgresql":
            return self._lock_postgres(on_wait)
        return self._lock_file(on_wait)

    @contextmanager
    def _lock_file(self, on_wait: Callable[[], None]) -> Iterator[None]:
        path = find_sqlite_file(self.engine.url.database)
        # Nobody else can open a ledger in memory.
        if path is None:
            yield
            return
        lock = FileLock(f"{path}.lock", mode=0o666 & ~read_umask())
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire(poll_interval=LOCK_POLL_S)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _lock_postgres(self, on_wait: Callable[[], None]) -> Iterator[None]:
        # The lock belongs to the connection; without AUTOCOMMIT it would hold a transaction open
        # as long as an audit takes.
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(select(func.pg_try_advisory_lock(LEDGER_LOCK_NUMBER))):
                on_wait()
                connection.execute(select(func.pg_advisory_lock(LEDGER_LOCK_NUMBER)))
            try:
                yield
            finally:
                connection.execute(select(func.pg_advisory_unlock(LEDGER_LOCK_NUMBER)))

    def _recover(self) -> None:
        """Complete, or clear away, what audits left that died: whoever holds the lock knows that
        none is at work.
        """
        unfinished = select(audits).where(audits.c.state.in_(("running", "committed")))
        with self.read() as connection:
            left = connection.execute(unfinished).all()
        for audit in left:
            run_dir = Path(audit.run_dir)
            part = get_part_path(run_dir)
            if audit.state == "running":
                shutil.rmtree(part, ignore_errors=True)
                self.set_audit_state(audit.audit, "interrupted")
                continue
            if part.is_dir() and not run_dir.exists():
                part.rename(run_dir)
            # Where there is neither of the two, they are on another machine.
            if run_dir.is_dir():
                self.set_audit_state(audit.audit, "finished")

    def set_audit_state(self, number: int, state: str) -> None:
        """An audit has ended, now, in this state."""
        with self.write() as connection:
            values = {"state": state, "finished_at": now()}
            connection.execute(update(audits).where(audits.c.audit == number).values(values))
