"""The lock on a ledger that the audits of one name share: one of them at a time is at work.

    SQLite        a file beside the ledger, locked as long as the process lives
    PostgreSQL    an advisory lock of a transaction that stays open, on a connection of its own: it
                  is free once the process is dead, and holds behind a pooler, too

Earlier versions locked the ledger as a whole. That lock is shared here, so that one of them and
these keep each other out.

A session may end while its process is at work. Then the lock is taken anew, within seconds; whoever
else finds it free, though nobody gave it back, waits that long first. The last word has a token in
the ledger (`Ledger.write`): who took the lock last, writes.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Function,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.errors import OperationError
from poisonwatch.ledger.database import make_lasting_engine
from poisonwatch.ledger.tables import audit_locks
from poisonwatch.ledger.transactions import Backend, translate_lost, watch_backend
from poisonwatch.permissions import read_umask
from poisonwatch.text.display import excerpt

LEDGER_LOCK_NUMBER = 0x706F69736F6E  # PostgreSQL's advisory lock on the whole ledger
LOCK_POLL_S = 1.0
PING_S = 2.0  # how often a session that holds a lock is looked after
GRACE_S = 3 * PING_S  # within which one that ended has taken its lock anew
SHOWN_CHARS = 80
NAME_DIGITS = 16  # of the SHA-256 of a name, in the name of its lock file


@contextmanager
def lock_file(ledger: Path, name: str, wait: bool, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock on a name beside a SQLite ledger, and share the one on the whole: whether it
    was got. One that somebody has is waited for, or not.
    """
    own, whole = _list_lock_files(ledger, name)
    has_told = False
    with ExitStack() as opened:
        files = ((_open_lock(own), fcntl.LOCK_EX), (_open_lock(whole), fcntl.LOCK_SH))
        for file, _ in files:
            opened.callback(os.close, file)
        while not all(_try_lock(file, kind) for file, kind in files):
            if not wait:
                yield False
                return
            if not has_told:
                on_wait()
            has_told = True
            time.sleep(LOCK_POLL_S)
        yield True


def is_file_locked(ledger: Path, name: str) -> bool:
    """Whether somebody holds the lock on a name beside a SQLite ledger, or an earlier version the
    one on the whole.
    """
    for path in _list_lock_files(ledger, name):
        # None that ever was locked has one.
        with suppress(FileNotFoundError), path.open("rb") as file:
            if not _try_lock(file.fileno(), fcntl.LOCK_SH):
                return True
    return False


def _list_lock_files(ledger: Path, name: str) -> tuple[Path, Path]:
    digits = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:NAME_DIGITS]
    own = ledger.with_name(f"{ledger.name}.{digits}.lock")
    return own, ledger.with_name(f"{ledger.name}.lock")


def _open_lock(path: Path) -> int:
    # It stays when it is given back: whoever waits has it open.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666 & ~read_umask())


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class SessionLock:
    """The lock on a name in a PostgreSQL database."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = make_lasting_engine(engine)
        self._name = name
        self._connection: Connection | None = None
        self._backend: Backend | None = None
        self._ended = Event()
        self._keeper = Thread(target=self._keep, name="poisonwatch-lock", daemon=True)

    def take(self) -> bool:
        """Whether the lock was free, and is held now. Raises what SQLAlchemy does."""
        connection = self._engine.connect()
        try:
            # One that is not got ends its transaction: nobody waits within one.
            shared = func.pg_try_advisory_xact_lock_shared(LEDGER_LOCK_NUMBER)
            own = func.pg_try_advisory_xact_lock(_make_key(self._name))
            self._backend = watch_backend(connection)
            is_taken = connection.scalar(select(shared)) and connection.scalar(select(own))
        except BaseException:
            _close(connection)
            raise
        if not is_taken:
            _close(connection)
            return False
        self._connection = connection
        return True

    def drop(self) -> None:
        """Let go of the lock, for now."""
        if self._connection is not None:
            _close(self._connection)
        self._connection = None

    def start_keeping(self) -> None:
        """Have the lock taken anew from now on wherever its session ends."""
        self._keeper.start()

    def end(self) -> None:
        """Let go of the lock for good."""
        self._ended.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self.drop()

    def _keep(self) -> None:
        while not self._ended.wait(PING_S):
            try:
                # A server may end a session that says nothing, too.
                if self._connection is not None:
                    self._connection.execute(select(1))
                else:
                    self.take()
            except SQLAlchemyError:
                self.drop()
                # The server may not know yet, and keep the lock for it.
                if self._backend is not None:
                    self._backend.end(self._engine)


def _make_key(name: str) -> Function[int]:
    """The number of the advisory lock on a name, of the ledger in this schema."""
    return func.hashtextextended(func.current_schema() + "/" + name, 0)


def is_session_locked(connection: Connection, name: str) -> bool:
    """Whether a session holds the lock on a name in a PostgreSQL database, or one of an earlier
    version the lock on the whole.
    """
    here = text("database = (SELECT oid FROM pg_database WHERE datname = current_database())")
    number: ColumnElement[int] = literal_column("(classid::bigint << 32) | objid::bigint")
    held = (
        select(func.count())
        .select_from(text("pg_locks"))
        .where(text("locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"), here)
        .where(number.in_((_make_key(name), LEDGER_LOCK_NUMBER)))
    )
    return bool(connection.execute(held).scalar_one())


def _close(connection: Connection) -> None:
    with suppress(SQLAlchemyError):
        connection.close()


@contextmanager
def lock_session(
    engine: Engine,
    url: str,
    name: str,
    wait: bool,
    on_wait: Callable[[], None],
    find_unreturned: Callable[[], int | None],
    retry: Callable[[Callable[[], Any]], Any],
) -> Iterator[bool]:
    """Hold the lock on a name in a PostgreSQL database: whether it was got. One that somebody has
    is waited for, or not. `find_unreturned` gives the token of whoever had it last and did not give
    it back; `retry` is the ledger's.
    """
    lock = SessionLock(engine, name)
    suspect: int | None = None
    has_told = False
    try:
        while True:
            pause_s = LOCK_POLL_S
            if retry(lambda: _take(lock, url)):
                unreturned = retry(find_unreturned)
                # Its holder is dead: had it lost its session alone, it would have taken it anew.
                if unreturned in (None, suspect):
                    break
                suspect, pause_s = unreturned, GRACE_S
                lock.drop()
            elif not wait:
                yield False
                return
            if not has_told:
                on_wait()
            has_told = True
            time.sleep(pause_s)
        lock.start_keeping()
        yield True
    finally:
        lock.end()


def _take(lock: SessionLock, url: str) -> bool:
    with translate_lost(url):
        return lock.take()


def find_unreturned(connection: Connection, name: str) -> int | None:
    """The token of whoever took the lock on a name last and did not give it back."""
    is_held = (audit_locks.c.name == name) & (audit_locks.c.held == 1)
    return connection.execute(select(audit_locks.c.token).where(is_held)).scalar_one_or_none()


def take_token(connection: Connection, name: str) -> int:
    """The token of whoever has the lock on a name from now on, in a transaction that writes."""
    of_name = audit_locks.c.name == name
    raised = update(audit_locks).where(of_name).values(token=audit_locks.c.token + 1, held=1)
    token = connection.execute(raised.returning(audit_locks.c.token)).scalar_one_or_none()
    if token is None:
        token = 1
        connection.execute(insert(audit_locks).values(name=name, token=token, held=1))
    return token


def give_back(connection: Connection, name: str, token: int) -> None:
    """Let others have the lock at once."""
    is_ours = (audit_locks.c.name == name) & (audit_locks.c.token == token)
    connection.execute(update(audit_locks).where(is_ours).values(held=0))


def require_token(connection: Connection, name: str, token: int) -> None:
    """Raise OperationError where somebody else has taken the lock since. Until the transaction ends
    nobody does.
    """
    query = select(audit_locks.c.token).where(audit_locks.c.name == name)
    if connection.dialect.name == "postgresql":
        query = query.with_for_update(read=True)
    if connection.execute(query).scalar_one_or_none() != token:
        raise OperationError(
            f"another audit called {excerpt(name, SHOWN_CHARS)} is at work on the ledger, since "
            "this one lost its lock: it recorded nothing more; its rows are the other's, or due in "
            "the next audit"
        )
