"""Transactions that may be lost, and are then done again.

A PostgreSQL server restarts, ends a session, or gives up one of two transactions that wait for each
other. Nothing is left then of a transaction whose COMMIT was not sent. Of one whose COMMIT got no
answer it is looked up: each leaves a mark of its own in the ledger (`commits`), so that what was
committed is never done twice, and what was not is never taken for done.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, Engine, delete, func, insert, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from poisonwatch.errors import OperationError
from poisonwatch.ledger.database import describe_failure
from poisonwatch.ledger.tables import commits

P = ParamSpec("P")
R = TypeVar("R")

MOST_LOST = 5  # times that a transaction is begun anew with a server that answers
PAUSES_S = (0.1, 1.0)  # between tries: after the first, and at most
# What a server does about a client that is silent (as `database` about a server), by transaction.
SERVER_SETTINGS = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
MARKS_DAYS = 2  # that marks of commits are kept
# Serialization failure, deadlock: the server undid one of the transactions that were in each
# other's way.
GIVEN_UP = ("40001", "40P01")


class LostTransactionError(OperationError):
    """The database went away within a transaction, or gave it up, and nothing of it was kept. It
    `was_reached` where it was there when the transaction began.
    """

    def __init__(self, message: str, was_reached: bool) -> None:
        super().__init__(message)
        self.was_reached = was_reached


class Retrying(Protocol):
    """Who knows how long to go on trying."""

    def retry(self, work: Callable[[], R]) -> R:
        """What `work` returns, begun anew where its transaction was lost."""
        ...


L = TypeVar("L", bound=Retrying)


def retried(
    function: Callable[Concatenate[L, P], R],
) -> Callable[Concatenate[L, P], R]:
    """Have a function of a ledger that is one transaction, or reads in several, begin anew where
    one was lost: it must change nothing but the ledger.
    """

    @functools.wraps(function)
    def call(ledger: L, /, *args: P.args, **settings: P.kwargs) -> R:
        return ledger.retry(lambda: function(ledger, *args, **settings))

    return call


def retry(work: Callable[[], R], patience_s: float) -> R:
    """What `work` returns. Where its transaction is lost it begins anew, up to MOST_LOST times, and
    waits up to `patience_s` for a server that went away. Raises what it raises then.
    """
    lost, pause_s = 0, PAUSES_S[0]
    away_since: float | None = None
    while True:
        try:
            return work()
        except LostTransactionError as error:
            if error.was_reached:
                lost, away_since = lost + 1, None
            elif away_since is None:
                away_since = time.monotonic()
            if lost > MOST_LOST or time.monotonic() - (away_since or time.monotonic()) > patience_s:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSES_S[1])


@contextmanager
def begin(engine: Engine, url: str) -> Iterator[Connection]:
    """One transaction, which leaves a mark where the engine's option `writing` is set. `url` is the
    ledger's, for errors. Raises LostTransactionError.
    """
    options = engine.get_execution_options()
    is_marked = options.get("writing") and engine.dialect.name == "postgresql"
    connection = _connect(engine, url)
    mark, is_committing = uuid4().hex, False
    backend: Backend | None = None
    try:
        transaction = connection.begin()
        if is_marked:
            backend = watch_backend(connection)
            _leave_mark(connection, mark)
        yield connection
        is_committing = not connection.invalidated
        transaction.commit()
    except SQLAlchemyError as error:
        if not connection.invalidated and not is_given_up(error):
            raise
        if backend is not None and connection.invalidated:
            backend.end(engine)
        # What was sent may have come about, whoever was there to hear of it.
        is_in_doubt = is_committing and is_marked and connection.invalidated
        if is_in_doubt and _was_committed(engine, mark, url, options.get("patience_s", 0)):
            return
        raise _make_lost_error(url, error, was_reached=True) from None
    finally:
        # Nor does a rollback that fails hide why there is one.
        with suppress(SQLAlchemyError):
            connection.close()


class Backend(NamedTuple):
    """A server's process at work on a transaction: its id, and when the transaction began."""

    pid: int
    began: datetime

    def end(self, engine: Engine) -> None:
        """End it where it waits for a client that is gone: until the server knows, it would keep
        its locks, and what it was told to commit it might.
        """
        waits = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid = :pid AND xact_start = :began AND state LIKE 'idle in transaction%'"
        )
        # Where the server is away, or does not let us, it is left to the server.
        with suppress(SQLAlchemyError), engine.connect() as connection:
            connection.execute(waits, self._asdict())


def watch_backend(connection: Connection) -> Backend:
    """The process that works on this transaction; until its end the server, too, gives up a client
    whose machine is silent.
    """
    settings = [func.set_config(*setting, True) for setting in SERVER_SETTINGS.items()]
    query = select(func.pg_backend_pid(), func.transaction_timestamp(), *settings)
    pid, began, *_ = connection.execute(query).one()
    return Backend(pid, began)


def is_given_up(error: BaseException) -> bool:
    """Whether the server gave up a transaction for another one's sake."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in GIVEN_UP


def _connect(engine: Engine, url: str) -> Connection:
    if engine.dialect.name != "postgresql":
        return engine.connect()
    with translate_lost(url):
        return engine.connect()


@contextmanager
def translate_lost(url: str) -> Iterator[None]:
    """Have what goes wrong with a database that was there be that the transaction is lost."""
    try:
        yield
    except DBAPIError as error:
        raise _make_lost_error(url, error, was_reached=False) from None


def _make_lost_error(url: str, error: BaseException, was_reached: bool) -> LostTransactionError:
    words = f"the ledger at {describe_failure(url, error)}: check the server and run again"
    return LostTransactionError(words, was_reached)


def _leave_mark(connection: Connection, mark: str) -> None:
    values = {"mark": mark, "committed_at": _write_time(datetime.now(UTC))}
    connection.execute(insert(commits).values(values))


def forget_marks(connection: Connection) -> None:
    """Remove the marks of transactions that nobody can be in doubt about any more."""
    last = _write_time(datetime.now(UTC) - timedelta(days=MARKS_DAYS))
    connection.execute(delete(commits).where(commits.c.committed_at < last))


def _write_time(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _was_committed(engine: Engine, mark: str, url: str, patience_s: float) -> bool:
    """Whether a transaction was committed whose COMMIT got no answer."""
    try:
        return retry(lambda: _find_mark(engine, mark, url), patience_s)
    except LostTransactionError as error:
        raise OperationError(
            f"{error}; whether what was written last was kept is not known: look before you do it "
            "again"
        ) from None


def _find_mark(engine: Engine, mark: str, url: str) -> bool:
    connection = _connect(engine, url)
    values = {"mark": mark, "committed_at": _write_time(datetime.now(UTC))}
    taken = postgresql.insert(commits).values(values).on_conflict_do_nothing()
    try:
        # Its backend may still be at it: an insert of the same mark waits for its end, where a
        # query would not. What is inserted is rolled back.
        return connection.execute(taken.returning(commits.c.mark)).first() is None
    except SQLAlchemyError as error:
        raise _make_lost_error(url, error, was_reached=True) from None
    finally:
        with suppress(SQLAlchemyError):
            connection.close()
