"""The connection to a ledger's database, whose tables are made those of this version.

On PostgreSQL a connection may go away at any time: its server restarts, somebody ends its session,
a firewall forgets it. One from the pool is tried before it is used, one whose other end is silent
is given up after about a minute, and nothing rests on a session that is kept: a pooler may give
each transaction another one.
"""

import functools
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    NullPool,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.util import LRUCache

from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.ledger.addresses import parse_ledger_url
from poisonwatch.ledger.file_faults import refuse_unfit_file, say_what_to_do
from poisonwatch.ledger.tables import metadata
from poisonwatch.permissions import make_private_file, make_private_folder
from poisonwatch.text.secrets import Secrets, conceal
from poisonwatch.text.sqlite_files import find_sqlite_file

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_WAIT_S = 120  # for another process's transaction on SQLite, or a server that went away
VERSION_TABLE = "poisonwatch_version"  # which migration the tables are of
# What it was called; MLflow, Prefect and others have one of this name, too.
EARLIER_VERSION_TABLE = "alembic_version"
MIGRATION_LOCK_NUMBER = 0x6D696772617465  # PostgreSQL's advisory lock of whoever makes the tables
MIGRATION_TRIES = 5  # where sessions are ended
BUSY_POLL_MS = 500  # that SQLite itself waits for a lock at a time: meanwhile no Ctrl-C is heard
# What the URL says goes first. A peer that is silent is given up after about a minute.
POSTGRESQL_OPTIONS = {
    "application_name": "poisonwatch",
    "connect_timeout": 10,  # seconds
    "keepalives": 1,
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
LIBPQ_DRIVERS = ("psycopg", "psycopg2")  # that take these options


# Statements as they were compiled, of every SQLite ledger of this process: as many as SQLAlchemy
# keeps for one. To compile one takes longer than to run it.
_compiled: LRUCache[Any, Any] = LRUCache(500)


def connect_database(url: str, wait_s: float = LOCK_WAIT_S, address: URL | None = None) -> Engine:
    """An engine on a ledger whose tables are those of this version.

    Transactions on SQLite begin by taking the write lock where the connection's option `writing` is
    set, so that a check and the change that follows from it cannot be torn apart.

    `wait_s` is how long another process that writes to SQLite is waited for, unless the option
    `patience_s` says otherwise. Raises what `make_engine` does, ConfigError where it is a ledger of
    a newer version, or others have tables there, OperationError where the database cannot be
    reached.
    """
    engine = make_engine(url, wait_s, address)
    try:
        if engine.dialect.name == "sqlite":
            _set_up_sqlite(engine, wait_s)
        _migrate_patiently(engine, conceal(url, url))
    # UnicodeError: a host name that no name server could be asked for.
    except (SQLAlchemyError, OSError, UnicodeError) as error:
        engine.dispose()
        raise OperationError(f"the ledger at {describe_failure(url, error)}") from None
    except ConfigError:
        engine.dispose()
        raise
    return engine


def make_engine(url: str, wait_s: float, address: URL | None = None) -> Engine:
    """An engine on the database of a ledger; nothing is connected to yet. `url` may name
    environment variables; it is what errors call the ledger, also where it is reached by another
    `address`. Raises SourceError where it is no URL, ConfigError where it is none of SQLite or
    PostgreSQL.
    """
    if address is None:
        address = parse_ledger_url(url)
    options: dict[str, Any] = {}
    if address.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": wait_s}
        options["execution_options"] = {"compiled_cache": _compiled}
    elif address.get_backend_name() == "postgresql":
        # A connection that went away while nobody used it is replaced.
        options = {"connect_args": choose_options(address), "pool_pre_ping": True}
    try:
        # Errors would else repeat the values of rows, which are hostile, or secret.
        engine = create_engine(address, hide_parameters=True, **options)
    # ValueError: an option of the URL that is no number, or neither true nor false.
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise ConfigError(
            f"state: {describe_failure(url, error)}: give a SQLAlchemy URL of SQLite or "
            "PostgreSQL (pip install 'poisonwatch[postgres]')"
        ) from None
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"state is a {engine.dialect.name} database: the ledger lives in SQLite or PostgreSQL"
        )
    return engine


def choose_options(address: URL) -> dict[str, Any]:
    """How a PostgreSQL server is connected to, beside what the URL says."""
    driver = address.get_driver_name()
    options: dict[str, Any] = {}
    if driver in LIBPQ_DRIVERS:
        options |= POSTGRESQL_OPTIONS
    if driver == "psycopg":
        # A prepared statement is the session's: behind a pooler the next transaction has another.
        options["prepare_threshold"] = None
    return {name: value for name, value in options.items() if name not in address.query}


def make_lasting_engine(engine: Engine) -> Engine:
    """An engine on the same PostgreSQL database whose connections are in no pool: for one that
    lasts.
    """
    options = choose_options(engine.url)
    return create_engine(engine.url, connect_args=options, hide_parameters=True, poolclass=NullPool)


def describe_failure(url: str, error: BaseException) -> str:
    """That the database at a URL cannot be used, and why, without what must not be shown."""
    return f"{conceal(url, url)} cannot be used ({explain(url, error)})"


def explain(url: str, error: BaseException) -> str:
    """Why the database at a URL failed, and what to do about its file, where it is one."""
    # The driver's own words: SQLAlchemy's repeat statement and values, which hold rows.
    cause = Secrets(servers=[url]).conceal_error(getattr(error, "orig", None) or error)
    return f"{cause}{say_what_to_do(url, error)}"


@functools.cache
def _get_sqlite_dialect() -> Dialect:
    """The dialect of every SQLite ledger of this process: with another, what was compiled already
    would be compiled anew.
    """
    engine = create_engine("sqlite://")
    # With the first connection a dialect asks what this SQLite can do.
    with engine.connect():
        return engine.dialect


def _set_up_sqlite(engine: Engine, wait_s: float) -> None:
    if engine.driver == "pysqlite":
        engine.dialect = _get_sqlite_dialect()
    path = find_sqlite_file(engine.url.database)
    if path is not None:
        refuse_unfit_file(path)
        # One that is there keeps its rights. What SQLite writes beside it has those of the file.
        make_private_folder(path.parent)
        make_private_file(path)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: sqlite3.Connection, _: Any) -> None:
        # The driver's own BEGIN comes too late: with the first statement that writes.
        connection.isolation_level = None
        # Readers do not wait for the one who writes.
        _choose_wal(connection, wait_s)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")  # KiB

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("writing"):
            connection.exec_driver_sql("BEGIN")
            return
        # FULL waits for the disk at every commit: what people decided and audits found outlives
        # a machine that loses power. NORMAL loses the last transactions then, and breaks none.
        synchronous = "NORMAL" if options.get("repeatable") else "FULL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        _begin_writing(connection, options.get("patience_s") or wait_s)
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")


def _choose_wal(connection: sqlite3.Connection, wait_s: float) -> None:
    """Have changes go to a log first. Whoever is first on a new database takes it for a moment, and
    SQLite does not wait for that by itself.
    """
    give_up = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= give_up:
                raise
            time.sleep(BUSY_POLL_MS / 10_000)


def _begin_writing(connection: Connection, patience_s: float) -> None:
    """Take the write lock, which another process may hold as long as it reads a large file."""
    give_up = time.monotonic() + patience_s
    while True:
        left_ms = max(0, round((give_up - time.monotonic()) * 1000))
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {min(BUSY_POLL_MS, left_ms)}")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        except OperationalError as error:
            if not is_busy(error.orig) or not left_ms:
                raise


def is_busy(error: BaseException | None) -> bool:
    """Whether SQLite says that another process holds the lock."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY


def find_newest_revision() -> str:
    """The revision of a ledger that is open: the last migration's."""
    return max(list_revisions())


def list_revisions() -> set[str]:
    """Every revision that this version knows, by the names of the migrations' files: Alembic would
    run each of them to say so, and runs them again to migrate.
    """
    return {path.name[:4] for path in (Path(__file__).parent / "migrations/versions").glob("0*")}


def make_migration_config() -> "Config":
    """Alembic's settings of the ledger's migrations."""
    from alembic.config import Config

    config = Config()
    # % begins a reference in an ini file.
    scripts = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", scripts)
    return config


def read_revision(connection: Connection, shown: str) -> str | None:
    """The revision of a ledger's tables, whichever version made them; None where there are none.
    Changes nothing. Raises ConfigError as `connect_database` does.
    """
    known = list_revisions()
    earlier = _find_earlier_revision(connection, known)
    if earlier is not None:
        return earlier
    _refuse_others(connection, known, shown)
    return next(iter(_read_revisions(connection, VERSION_TABLE)), None)


def _migrate_patiently(engine: Engine, shown: str) -> None:
    """Migrate, from the start where a server ends the session meanwhile: nothing is left of it."""
    for left in reversed(range(MIGRATION_TRIES)):
        try:
            _migrate(engine, shown)
            break
        except DBAPIError as error:
            if not error.connection_invalidated or not left:
                raise


def _migrate(engine: Engine, shown: str) -> None:
    """Bring the tables up to this version, from any earlier one, or from none."""
    with engine.connect() as connection:
        # Known without Alembic, which takes as long to import as all else of most commands.
        if _read_revisions(connection, VERSION_TABLE) == [find_newest_revision()]:
            return
    from alembic import command

    config = make_migration_config()
    known = list_revisions()
    with engine.execution_options(writing=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            # Others that open the ledger for the first time wait, and find it done.
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK_NUMBER)))
        _take_over_version(connection, known, config)
        _refuse_others(connection, known, shown)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _read_revisions(connection: Connection, table: str) -> list[str]:
    """What a version table holds; nothing where there is none."""
    if not inspect(connection).has_table(table):
        return []
    found = connection.exec_driver_sql(f"SELECT version_num FROM {table}")  # noqa: S608
    return [str(revision) for revision in found.scalars()]


def _take_over_version(connection: Connection, known: set[str], config: "Config") -> None:
    """Move the version to our own table from the one that earlier versions shared with whoever else
    is in the database, if it is ours.
    """
    found = _find_earlier_revision(connection, known)
    if found is not None:
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        context.stamp(ScriptDirectory.from_config(config), found)
        # Whoever else comes into the database may make one of this name.
        connection.exec_driver_sql(f"DROP TABLE {EARLIER_VERSION_TABLE}")


def _find_earlier_revision(connection: Connection, known: set[str]) -> str | None:
    """What the table says that earlier versions shared with others; None where there is none, or
    another table, or it is not ours.
    """
    found = _read_revisions(connection, EARLIER_VERSION_TABLE)
    has_tables = {"places", "decisions"} <= set(inspect(connection).get_table_names())
    is_ours = has_tables and len(found) == 1 and set(found) <= known
    return found[0] if is_ours and not _read_revisions(connection, VERSION_TABLE) else None


def _refuse_others(connection: Connection, known: set[str], shown: str) -> None:
    """Raise ConfigError where the tables are of a newer version, or somebody else's."""
    found = _read_revisions(connection, VERSION_TABLE)
    unknown = set(found) - known
    if unknown:
        newest = max(known)
        raise ConfigError(
            f"state: the ledger at {shown} was written by a newer version of Poisonwatch (its "
            f"tables are of {', '.join(sorted(unknown))}, this one knows them up to {newest}): "
            "install that version, or restore the ledger from before"
        )
    taken = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
    if not found and taken:
        raise ConfigError(
            f"state: the database at {shown} has tables that are none of a ledger's "
            f"({', '.join(taken[:3])}): give the ledger a database of its own"
        )
