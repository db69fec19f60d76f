"""The ledger: every row ever seen, what became of it, and what each audit found.

One audit of a name at a time is at work. What it will audit is what the ledger says no audit has
covered under the same model and sentinels; what it found is written in one transaction. Between
these two nothing is written, so that an audit that dies leaves all its rows to the next one:

    running      an audit is at work, or died
    committed    its results are in the ledger; its run directory is complete, but may still be
                 called `<run_dir>.part`
    finished     all is in place
    interrupted  it died before it was committed

Audits of different names work side by side: each has its own files and places, alerts and accounts
to give. What they share, contents and the chain of records, is added to by one at a time, in short
transactions, or where the database itself tells who was first. A row is audited by one of them
(`claims`); audits are numbered in the order of their results (`audits`).

Here are opening, transactions, the lock and recovery; `batches` reads rows out, `intake` brings
them in, `audits` opens and commits an audit.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Column, Connection, Row, Select, Table, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.atomic import get_part_path
from poisonwatch.attestation.signer import Signer
from poisonwatch.errors import InputError, OperationError
from poisonwatch.ledger.addresses import parse_ledger_url
from poisonwatch.ledger.claims import unclaim
from poisonwatch.ledger.database import LOCK_WAIT_S, connect_database, explain
from poisonwatch.ledger.locks import (
    find_unreturned,
    give_back,
    is_file_locked,
    is_session_locked,
    lock_file,
    lock_session,
    require_token,
    take_token,
)
from poisonwatch.ledger.records import ChainHead, read_head
from poisonwatch.ledger.tables import audits
from poisonwatch.ledger.transactions import begin, forget_marks, retry
from poisonwatch.ledger.versions import Version as Version
from poisonwatch.ledger.versions import find_covering_versions as find_covering_versions
from poisonwatch.ledger.versions import find_or_add_version as find_or_add_version
from poisonwatch.text.secrets import conceal
from poisonwatch.text.sqlite_files import (
    FileIdentity,
    find_sqlite_file,
    identify_file,
    is_made,
)

R = TypeVar("R")
T = TypeVar("T")
# That an audit at work waits for others that write, or for its server, rather than lose its work.
AT_WORK_WAIT_S = 3600
# An audit that is at work, or died.
IS_UNFINISHED = audits.c.state.in_(("running", "committed"))
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


def insert_missing(
    connection: Connection, table: Table, key: Column[Any], values: Sequence[dict[str, Any]]
) -> set[Any]:
    """Insert rows that were not there when the transaction looked, by a unique column: the keys of
    those that others have put in since.
    """
    if connection.dialect.name != "postgresql":
        # The transaction holds the write lock (`Ledger.write`).
        insert_all(connection, table, values)
        return set()
    # Who puts in the same at the same time is waited for.
    added = postgresql.insert(table).on_conflict_do_nothing(index_elements=[key]).returning(key)
    inserted = connection.execute(added, values).scalars().all()
    return {value[key.name] for value in values} - {_unwrap(found) for found in inserted}


def _unwrap(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


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


class Ledger:
    """An open ledger. Use `Ledger.at(url)` in a `with`. What is recorded in it is signed by the
    `signer`, if it has one. Errors call it by its `url`, also where it is reached by another
    `address`.
    """

    def __init__(
        self,
        url: str,
        wait_s: float = LOCK_WAIT_S,
        signer: Signer | None = None,
        address: URL | None = None,
    ) -> None:
        self.url = url
        self.engine = connect_database(url, wait_s, address)
        self.signer = signer
        self._wait_s = wait_s
        # Of the names whose locks are held.
        self._tokens: dict[str, int] = {}
        self._file: FileIdentity | None = None
        self._held: Connection | None = None
        if self.engine.dialect.name == "sqlite":
            with self.read() as connection:
                # SQLite's own word: a URL may name the file in many ways.
                # As bytes: a folder's name need not be UTF-8.
                query = "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"
                path = os.fsdecode(connection.exec_driver_sql(query).scalar_one() or b"")
            # A ledger in memory has none.
            if path:
                self._file = identify_file(Path(path))

    @classmethod
    @contextmanager
    def at(
        cls,
        url: str,
        wait_s: float = LOCK_WAIT_S,
        signer: Signer | None = None,
        address: URL | None = None,
    ) -> Iterator["Ledger"]:
        """Open the ledger at a SQLAlchemy URL, making it where there is none; `wait_s` and errors
        are those of `connect_database`.
        """
        ledger = cls(url, wait_s, signer, address=address)
        try:
            yield ledger
        except SQLAlchemyError as error:
            failed = f"the ledger at {conceal(url, url)} failed: {explain(url, error)}"
            # Not chained: whoever logs it would log the statement.
            raise OperationError(failed) from None
        finally:
            ledger.engine.dispose()

    @classmethod
    @contextmanager
    def existing(
        cls,
        url: str,
        wait_s: float = LOCK_WAIT_S,
        signer: Signer | None = None,
        address: URL | None = None,
    ) -> Iterator["Ledger"]:
        """Open a ledger that is there already. Raises InputError where its SQLite file is not, and
        what `at` does.
        """
        named = parse_ledger_url(url)
        is_sqlite = named.get_backend_name() == "sqlite"
        if is_sqlite and not is_made(find_sqlite_file(named.database) or Path()):
            raise InputError(
                f"there is no ledger at {conceal(url, url)}: no audit has run; "
                "run `poisonwatch audit` first"
            )
        with cls.at(url, wait_s, signer, address=address) as ledger:
            yield ledger

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the ledger, whatever others write meanwhile. Raises
        LostTransactionError where the database goes away.
        """
        if self._held is not None:
            yield self._held
            return
        engine = self.engine
        # On SQLite every transaction sees one; on PostgreSQL, unless asked, each statement another.
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with begin(engine, self.url) as connection:
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
        or replaced since it was opened, or somebody else has taken the lock on this audit's name,
        and LostTransactionError where the database went away and nothing was kept.
        """
        options = {"writing": True, "repeatable": repeatable, "patience_s": self._patience_s}
        with begin(self.engine.execution_options(**options), self.url) as connection:
            for name, token in self._tokens.items():
                require_token(connection, name, token)
            yield connection
            self._require_file()
        # Deleted between the two, it took the transaction with it.
        self._require_file()

    def retry(self, work: Callable[[], R]) -> R:
        """What `work` returns, which reads or writes in transactions of its own, begun anew where
        one was lost: it must change nothing but the ledger.
        """
        # Of one state of the ledger nothing can be read again.
        if self._held is not None:
            return work()
        return retry(work, self._patience_s)

    def read_head(self) -> ChainHead:
        """Where the chain of records ends now."""
        return self.retry(self._read_head)

    def _read_head(self) -> ChainHead:
        with self.read() as connection:
            return read_head(connection)

    def disconnect(self) -> None:
        """Keep no connection to a server until the ledger is asked again."""
        if self.engine.dialect.name == "postgresql":
            self.engine.dispose()

    @property
    def _patience_s(self) -> float:
        """How long others that write, or a server that is away, are waited for."""
        return AT_WORK_WAIT_S if self._tokens else self._wait_s

    def _require_file(self) -> None:
        """Raise OperationError where the path does not lead to the file that was opened: what is
        written goes to a file that nobody will find.
        """
        if self._file is not None and identify_file(self._file.path) != self._file:
            raise OperationError(
                f"the ledger at {conceal(self.url)} was deleted or replaced while it was open: "
                "nothing was recorded in what is there now; put the file back, or run again"
            )

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only one at work for the audits of a name; `on_wait` is called once, if somebody
        is. The lock of a process that dies is free.
        """
        with self._take_lock(name, on_wait=on_wait):
            self._recover(name)
            for other in self._list_unfinished() - {name}:
                # Whoever has the lock is at work.
                with self._take_lock(other, wait=False) as is_taken:
                    if is_taken:
                        self._recover(other)
            yield

    def is_locked(self, name: str) -> bool:
        """Whether somebody is at work for the audits of a name at this moment; asked without taking
        the lock.
        """
        if self.engine.dialect.name == "postgresql":
            return self.retry(lambda: self._is_session_locked(name))
        path = find_sqlite_file(self.engine.url.database)
        return path is not None and is_file_locked(path, name)

    def _is_session_locked(self, name: str) -> bool:
        with self.read() as connection:
            return is_session_locked(connection, name)

    @contextmanager
    def _take_lock(
        self, name: str, wait: bool = True, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator[bool]:
        """Hold the lock on a name, and the token without which nothing is written: whether it was
        got.
        """
        with self._pick_lock(name, wait, on_wait) as is_taken:
            if not is_taken:
                yield False
                return
            self._tokens[name] = self.retry(lambda: self._take_token(name))
            try:
                yield True
            finally:
                token = self._tokens.pop(name)
                # Should the server be away, the next one waits for some seconds.
                with suppress(OperationError):
                    self.retry(lambda: self._give_back(name, token))

    def _pick_lock(
        self, name: str, wait: bool, on_wait: Callable[[], None]
    ) -> AbstractContextManager[bool]:
        if self.engine.dialect.name == "postgresql":
            return self._lock_session(name, wait, on_wait)
        path = find_sqlite_file(self.engine.url.database)
        # Nobody else can open a ledger in memory.
        if path is None:
            return nullcontext(True)
        return lock_file(path, name, wait, on_wait)

    def _lock_session(
        self, name: str, wait: bool, on_wait: Callable[[], None]
    ) -> AbstractContextManager[bool]:
        def find() -> int | None:
            with self.read() as connection:
                return find_unreturned(connection, name)

        return lock_session(self.engine, self.url, name, wait, on_wait, find, self.retry)

    def _take_token(self, name: str) -> int:
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                forget_marks(connection)
            return take_token(connection, name)

    def _give_back(self, name: str, token: int) -> None:
        with self.write() as connection:
            give_back(connection, name, token)

    def _list_unfinished(self) -> set[str]:
        """The names whose audits died, or are at work."""
        query = select(audits.c.name).where(IS_UNFINISHED).distinct()
        return {audit.name for audit in self._ask(query)}

    def _ask(self, query: Select[Any]) -> Sequence[Row[Any]]:
        def read() -> Sequence[Row[Any]]:
            with self.read() as connection:
                return connection.execute(query).all()

        return self.retry(read)

    def _recover(self, name: str) -> None:
        """Complete, or clear away, what audits of a name left that died: whoever holds the lock
        knows that none is at work.
        """
        for audit in self._ask(select(audits).where(IS_UNFINISHED, audits.c.name == name)):
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
        self.retry(lambda: self._set_audit_state(number, state))

    def _set_audit_state(self, number: int, state: str) -> None:
        with self.write() as connection:
            values = {"state": state, "finished_at": now()}
            connection.execute(update(audits).where(audits.c.audit == number).values(values))
            unclaim(connection, number)
