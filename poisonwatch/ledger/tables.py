"""The ledger's tables, and the connection to them.

    files ──< places >── rows ──< results >── audits ──< flags
                          │ └──< rejections              │ │ ├──< deliveries
                          ├──< decisions                 │ │ └──< alerts ──< notified_rows
                          └──< reviews                   │ └── of a name, in a run directory
                                                         └── versions: model and sentinels that
                                                             a result holds for

A row is a content: `rows.id` is the example's id (SHA-256 of its messages; of its bytes where it
cannot be read), and each position of a file that holds this content is a place. Changes of the
tables are migrations (`migrations/`, Alembic), applied when a ledger is opened.
"""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.display import get_first_line
from poisonwatch.text.environment import conceal

LOCK_WAIT_S = 120  # for another process's transaction on SQLite

metadata = MetaData()

files = Table(
    "files",
    metadata,
    Column("file", Integer, primary_key=True),
    Column("audit", String(200), nullable=False),  # name of the audit whose source this is
    Column("name", Text, nullable=False),
    Column("fingerprint", Text),  # of the version that was read last
    Column("mark", Text),  # how far it was read
    Column("reading", Text, nullable=False),  # the settings it was read with, as JSON
    Column("rows", Integer, nullable=False),
    Column("read_at", String(32), nullable=False),
    Column("gone_at", String(32)),  # since when the source has it no more
    UniqueConstraint("audit", "name"),
)

shapes = Table(
    "shapes",
    metadata,
    Column("shape", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("format", Text, nullable=False),  # name, fields and template, as JSON
    Column("schema", LargeBinary),  # Arrow schema of columnar files
)

rows = Table(
    "rows",
    metadata,
    Column("row", Integer, primary_key=True),
    Column("id", LargeBinary(32), nullable=False, unique=True),
    Column("raw", LargeBinary, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # SHA-256 of raw
    Column("shape", ForeignKey("shapes.shape"), nullable=False),
    Column("problem", Text),  # why it cannot be read
    Column(
        "status", String(10), nullable=False
    ),  # pending, rejected, clean, flagged, released, poison
    Column("decided", String(10)),  # the last verdict of a person that settles it: poison or benign
    Column("first_seen", String(32), nullable=False),
    Column("replaces", ForeignKey("rows.row")),  # the content that stood here before it was edited
    Index("rows_by_status", "status"),
)

places = Table(
    "places",
    metadata,
    Column("file", ForeignKey("files.file"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("row", ForeignKey("rows.row"), nullable=False),
    Column("place", Text, nullable=False),  # for people: the line, or the row's number
    Index("places_by_row", "row"),
    sqlite_with_rowid=False,
)

versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sentinels", String(64), nullable=False),
    UniqueConstraint("model", "sentinels"),
)

audits = Table(
    "audits",
    metadata,
    Column("audit", Integer, primary_key=True),
    Column("audit_id", String(40), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("version", ForeignKey("versions.version"), nullable=False),
    Column(
        "state", String(12), nullable=False
    ),  # running, committed (its run directory is not in place yet), finished, interrupted
    Column("started_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("run_dir", Text, nullable=False),
    Column("summary", Text),  # as JSON
    Column("flow_run", String(40)),  # Prefect's id of the flow run
    Index("audits_by_name", "name", "audit"),
)

results = Table(
    "results",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("version", ForeignKey("versions.version"), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column("flagged", Integer, nullable=False),
    Index("results_by_audit", "audit"),
    sqlite_with_rowid=False,
)

rejections = Table(
    "rejections",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("checks", String(64), primary_key=True),  # digest of the validation settings
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column("expectation", Text, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)

flags = Table(
    "flags",
    metadata,
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("panel", Text, nullable=False),
    Column("sentinel", Text, nullable=False),
    Column("severity", String(10), nullable=False),
    Column("score", Float, nullable=False),
    Column("q", Float, nullable=False),
    Column("record", Text, nullable=False),  # the line of flags.jsonl
    Column("group", Integer),  # the line of evidence.jsonl, from 1; none where it was not grouped
    Index("flags_by_row", "row", "audit"),
)

decisions = Table(
    "decisions",
    metadata,
    Column(
        "number", Integer, primary_key=True, autoincrement=False
    ),  # 1, 2, 3, ...: a gap is a deletion
    Column("row", ForeignKey("rows.row"), nullable=False),
    Column("example_id", String(64), nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("note", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("decided_at", String(32), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("decisions_by_row", "row"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert", Integer, primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column(
        "key", String(16), nullable=False, unique=True
    ),  # in the message, so that a receiver knows a repeated one
    Column("kind", String(10), nullable=False),  # cluster, digest
    Column("severity", String(10), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("alerts_by_audit", "audit"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("kind", String(10), primary_key=True),  # audit: an account of it; alert: a message
    # audits.audit or alerts.alert, by the kind: no foreign key can say so
    Column("item", Integer, primary_key=True, autoincrement=False),
    # mlflow, prefect; or the digest of an alert target's address without its secrets
    Column("target", String(64), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),  # that put it in
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", String(32)),  # none: pending
    Index("deliveries_open", "delivered_at"),
    Index("deliveries_by_audit", "audit"),
)

notified_rows = Table(
    "notified_rows",
    metadata,
    Column("alert", ForeignKey("alerts.alert"), primary_key=True),
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Index("notified_rows_by_row", "row"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("trace", String(64), primary_key=True),  # the row in MLflow
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column("row", ForeignKey("rows.row"), nullable=False),
    Column("answer", String(64)),  # the assessment that was taken into the chain of decisions last
    Index("reviews_by_row", "row"),
)


def connect_database(url: str, wait_s: float = LOCK_WAIT_S) -> Engine:
    """An engine on a ledger whose tables are those of this version.

    Transactions on SQLite begin by taking the write lock where the connection's option `writing` is
    set, so that a check and the change that follows from it cannot be torn apart.

    `url` may name environment variables; `wait_s` is how long another process that writes to SQLite
    is waited for. Raises SourceError where it is no URL, ConfigError where it is none of SQLite or
    PostgreSQL, OperationError where the database cannot be reached.
    """
    place = parse_database_url(url, "state")
    try:
        engine = create_engine(
            place, connect_args={"timeout": wait_s} if place.get_backend_name() == "sqlite" else {}
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"state: {_describe_failure(url, error)}: give a SQLAlchemy URL of SQLite or PostgreSQL (pip install 'poisonwatch[postgres]')"
        ) from None
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"state is a {engine.dialect.name} database: the ledger lives in SQLite or PostgreSQL"
        )
    try:
        if engine.dialect.name == "sqlite":
            _set_up_sqlite(engine)
        _migrate(engine)
    except (SQLAlchemyError, OSError) as error:
        engine.dispose()
        raise OperationError(f"the ledger at {_describe_failure(url, error)}") from error
    return engine


def _describe_failure(url: str, error: BaseException) -> str:
    return f"{conceal(url)} cannot be used ({conceal(get_first_line(getattr(error, 'orig', None) or error), url)})"


def _set_up_sqlite(engine: Engine) -> None:
    if engine.url.database not in (None, "", ":memory:"):
        Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "cache_size = -65536",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Any) -> None:
        writing = connection.get_execution_options().get("writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _migrate(engine: Engine) -> None:
    """Bring the tables up to this version, from any earlier one, or from none."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
    with engine.execution_options(writing=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
