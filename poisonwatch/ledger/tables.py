"""The ledger's tables, and the connection to them.

    files ──< places >── rows ──< results >── audits ──< flags
                          │ └──< rejections            │ ├──< deliveries
                          ├──< decisions               │ └──< alerts ──< notified_rows
                          └──< reviews                 └── versions: model, its reading, sentinels
                                                           and settings that a result holds for
    records ──< signatures        the chain of what was found and decided (`chain_tables`)
    schedules, notices            when audits are due, and that they did not come (`notice_tables`)

A row is a content: `rows.id` is the example's id (SHA-256 of what is trained on; of its bytes where
it cannot be read), and each position of a file that holds this content is a place. A content may
come in several bytes, which differ in fields that are not trained on: those it came in first are
the row's own, all others are variants. Contents are audited, bytes are released. What audits found
and people decided is only ever added; a row's status and verdict follow from it (`row_states`).
Changes of the tables are migrations (`migrations/`, Alembic), applied when a ledger is opened.
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
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.ledger import notice_tables as notice_tables
from poisonwatch.ledger.chain_tables import metadata as metadata
from poisonwatch.ledger.outbox_tables import deliveries as deliveries
from poisonwatch.ledger.outbox_tables import outages as outages
from poisonwatch.permissions import make_private_file, make_private_folder
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.secrets import Secrets, conceal
from poisonwatch.text.sqlite_files import find_sqlite_file

LOCK_WAIT_S = 120  # for another process's transaction on SQLite

# a file of an audit's source; a query or a split of a data set counts as one
files = Table(
    "files",
    metadata,
    Column("file", Integer, primary_key=True),
    # name of the audit whose source this is
    Column("audit", String(200), nullable=False),
    Column("name", Text, nullable=False),
    # of the version that was read last
    Column("fingerprint", Text),
    # how far it was read
    Column("mark", Text),
    # the settings it was read with, as JSON
    Column("reading", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("read_at", String(32), nullable=False),
    # since when the source has it no more
    Column("gone_at", String(32)),
    # how its rows were read: one that grows is read on as it began
    Column("shape", ForeignKey("shapes.shape")),
    UniqueConstraint("audit", "name"),
)

# how the bytes of rows are read again: their format, and the schema of columnar files
shapes = Table(
    "shapes",
    metadata,
    Column("shape", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    # name, fields and template, as JSON
    Column("format", Text, nullable=False),
    # Arrow schema of columnar files
    Column("schema", LargeBinary),
)

# a content, whatever places it has
rows = Table(
    "rows",
    metadata,
    Column("row", Integer, primary_key=True),
    Column("id", LargeBinary(32), nullable=False, unique=True),
    Column("raw", LargeBinary, nullable=False),
    # SHA-256 of raw
    Column("digest", LargeBinary(32), nullable=False),
    Column("shape", ForeignKey("shapes.shape"), nullable=False),
    # why it cannot be read
    Column("problem", Text),
    # pending, rejected, clean, flagged, released, poison
    Column("status", String(10), nullable=False),
    # the last verdict of a person that settles it: poison or benign
    Column("decided", String(10)),
    Column("first_seen", String(32), nullable=False),
    # the content that stood here before it was edited
    Column("replaces", ForeignKey("rows.row")),
    # a variant: the bytes that stood at the place that it had last; none: the row's own
    Column("last_variant", Integer),
    Index("rows_by_status", "status"),
)

# other bytes of a content than those it came in first
variants = Table(
    "variants",
    metadata,
    Column("variant", Integer, primary_key=True),
    Column("row", ForeignKey("rows.row"), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    # SHA-256 of raw
    Column("digest", LargeBinary(32), nullable=False),
    Column("shape", ForeignKey("shapes.shape"), nullable=False),
    Column("first_seen", String(32), nullable=False),
    Index("variants_by_row", "row"),
    Index("variants_by_digest", "digest"),
)

# where a content is, or was
places = Table(
    "places",
    metadata,
    Column("file", ForeignKey("files.file"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("row", ForeignKey("rows.row"), nullable=False),
    # for people: the line, or the row's number
    Column("place", Text, nullable=False),
    # the bytes that stand here; none: the row's own
    Column("variant", ForeignKey("variants.variant")),
    # with the variant: how often bytes stand is answered from it alone
    Index("places_by_row", "row", "variant"),
    sqlite_with_rowid=False,
)

# what a result holds for
versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sentinels", String(64), nullable=False),
    # how the model reads rows; none: recorded by a version of this library that did not say
    Column("reading", String(64)),
    # the settings that shape verdicts, as JSON (`verdict_settings`); none as of the reading
    Column("settings", Text),
    UniqueConstraint("model", "sentinels", "reading", "settings"),
)

audits = Table(
    "audits",
    metadata,
    Column("audit", Integer, primary_key=True),
    Column("audit_id", String(40), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("version", ForeignKey("versions.version"), nullable=False),
    # running, committed (its run directory is not in place yet), finished, interrupted
    Column("state", String(12), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("run_dir", Text, nullable=False),
    # as JSON
    Column("summary", Text),
    # Prefect's id of the flow run
    Column("flow_run", String(40)),
    Index("audits_by_name", "name", "audit"),
)

# a row that passed validation, by an audit of it: rows are added, never changed; the last audit
# under a version has the last word under it
results = Table(
    "results",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("version", ForeignKey("versions.version"), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("flagged", Integer, nullable=False),
    Index("results_by_audit", "audit"),
    sqlite_with_rowid=False,
)

# a row that failed validation, or that could not be measured, by an audit of it under these
# settings: rows are added, never changed
rejections = Table(
    "rejections",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    # digest of the validation settings, or of what it was to be measured by
    Column("checks", String(64), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("expectation", Text, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)

# every flag of every audit: a row that is flagged again has one more
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
    # the line of flags.jsonl
    Column("record", Text, nullable=False),
    # the line of evidence.jsonl, from 1; none where it was not grouped
    Column("group", Integer),
    Index("flags_by_row", "row", "audit"),
)

# a chain (`ledger.decisions`): rows are added, never changed
decisions = Table(
    "decisions",
    metadata,
    # 1, 2, 3, ...: a gap is a deletion
    Column("number", Integer, primary_key=True, autoincrement=False),
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

# messages about flagged rows
alerts = Table(
    "alerts",
    metadata,
    Column("alert", Integer, primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    # in the message, so that a receiver knows a repeated one
    Column("key", String(16), nullable=False, unique=True),
    # cluster, digest
    Column("kind", String(10), nullable=False),
    Column("severity", String(10), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("alerts_by_audit", "audit"),
)

# the rows that an alert is about, so that nobody is notified of them again
notified_rows = Table(
    "notified_rows",
    metadata,
    Column("alert", ForeignKey("alerts.alert"), primary_key=True),
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Index("notified_rows_by_row", "row"),
)

# rows that people look at in MLflow
reviews = Table(
    "reviews",
    metadata,
    # the row in MLflow
    Column("trace", String(64), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column("row", ForeignKey("rows.row"), nullable=False),
    # the answer that was recorded last: ID#NUMBER (`reviews`)
    Column("answer", String(64)),
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
    address = parse_database_url(url, "state")
    options: dict[str, Any] = {}
    if address.get_backend_name() == "sqlite":
        options["timeout"] = wait_s
    try:
        # Errors would else repeat the values of rows, which are hostile, or secret.
        engine = create_engine(address, connect_args=options, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"state: {_describe_failure(url, error)}: give a SQLAlchemy URL of SQLite or "
            "PostgreSQL (pip install 'poisonwatch[postgres]')"
        ) from None
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"state is a {engine.dialect.name} database: the ledger lives in SQLite or PostgreSQL"
        )
    try:
        if engine.dialect.name == "sqlite":
            _set_up_sqlite(engine)
        _migrate(engine)
    # UnicodeError: a host name that no name server could be asked for.
    except (SQLAlchemyError, OSError, UnicodeError) as error:
        engine.dispose()
        raise OperationError(f"the ledger at {_describe_failure(url, error)}") from None
    return engine


def _describe_failure(url: str, error: BaseException) -> str:
    # The driver's own words: SQLAlchemy's repeat the statement.
    cause = Secrets(servers=[url]).conceal_error(getattr(error, "orig", None) or error)
    return f"{conceal(url, url)} cannot be used ({cause})"


def _set_up_sqlite(engine: Engine) -> None:
    path = find_sqlite_file(engine.url.database)
    if path is not None:
        # One that is there keeps its rights. What SQLite writes beside it has those of the file.
        make_private_folder(path.parent)
        make_private_file(path)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: sqlite3.Connection, _: Any) -> None:
        # The driver's own BEGIN comes too late: with the first statement that writes.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",  # readers do not wait for the one who writes
            "foreign_keys = ON",
            "cache_size = -65536",  # KiB
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        begin = "BEGIN"
        options = connection.get_execution_options()
        if options.get("writing"):
            begin = "BEGIN IMMEDIATE"
            # FULL waits for the disk at every commit: what people decided and audits found outlives
            # a machine that loses power. NORMAL loses the last transactions then, and breaks none.
            synchronous = "NORMAL" if options.get("repeatable") else "FULL"
            connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        connection.exec_driver_sql(begin)


def find_newest_revision() -> str:
    """The revision of a ledger that is open: the last migration's."""
    return max(path.name[:4] for path in (Path(__file__).parent / "migrations/versions").glob("0*"))


def _migrate(engine: Engine) -> None:
    """Bring the tables up to this version, from any earlier one, or from none."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    # % begins a reference in an ini file.
    scripts = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", scripts)
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
    with engine.execution_options(writing=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
