"""What opening a ledger of an earlier version would change in it; and a copy of it from before.

Looking changes nothing: the ledger may be in use by the version that wrote it.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.atomic import replace_file, sync_file, sync_folder
from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError, OperationError, PoisonwatchError
from poisonwatch.ledger.addresses import parse_ledger_url
from poisonwatch.ledger.audit_records import find_audit_record
from poisonwatch.ledger.database import (
    choose_options,
    describe_failure,
    find_newest_revision,
    make_migration_config,
    read_revision,
)
from poisonwatch.ledger.locks import is_file_locked, is_session_locked
from poisonwatch.ledger.verdict_settings import describe_verdict_settings
from poisonwatch.permissions import make_private_file
from poisonwatch.source_config import READING_RULES
from poisonwatch.text.secrets import conceal
from poisonwatch.text.sqlite_files import find_sqlite_file, is_made

# A migration writes the file anew in the worst case, and into its log first; a copy lies beside.
ROOM_FACTOR = 3


@dataclass(frozen=True, slots=True)
class Migration:
    """One change of the tables: its revision, and what it is about."""

    revision: str
    about: str


@dataclass(kw_only=True)
class LedgerUpgrade:
    """A ledger as it is (its `revision`, the Poisonwatch of its last audit, where known, and its
    bytes), and what lies between it and this version.

    `free` is in bytes, None on a server; `at_work` are the names of audits at work now. The next
    pull reads `files` anew, which held `rows` rows. `is_judged_otherwise`: settings that shape
    verdicts are others than those of the last audit.
    """

    revision: str
    newest: str
    written_by: str | None
    size: int
    free: int | None = None
    migrations: list[Migration] = field(default_factory=list)
    at_work: list[str] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    is_judged_otherwise: bool = False

    @property
    def lacks_room(self) -> bool:
        """Whether there is less free disk than a migration and a copy may take."""
        if not self.migrations or self.free is None:
            return False
        return self.free < ROOM_FACTOR * self.size


def plan_ledger_upgrade(config: AuditConfig) -> LedgerUpgrade:
    """What this version would change in the audit's ledger.

    Raises InputError where there is no ledger, ConfigError where it is of a newer version or the
    tables are somebody else's, OperationError where it cannot be read.
    """
    shown = conceal(config.state, config.state)
    file = find_ledger_file(config)
    if file is not None and not is_made(file):
        raise InputError(
            f"there is no ledger at {shown}: nothing to upgrade; `poisonwatch audit` makes one"
        )
    try:
        with _look_into(config, file) as connection:
            revision = read_revision(connection, shown)
            if revision is None:
                raise InputError(
                    f"there is no ledger at {shown}: nothing to upgrade; "
                    "`poisonwatch audit` makes one"
                )
            return _describe(connection, config, revision, file)
    except SQLAlchemyError as error:
        raise OperationError(f"the ledger at {describe_failure(config.state, error)}") from None


def find_ledger_file(config: AuditConfig) -> Path | None:
    """The file of a ledger in SQLite; None of one on a server."""
    address = parse_ledger_url(config.state)
    if address.get_backend_name() != "sqlite":
        return None
    return find_sqlite_file(address.database)


def copy_ledger(file: Path, revision: str) -> Path:
    """Copy a ledger in SQLite as it is, also while others write, beside it, under a name with its
    revision: the copy's path, of which there was no file before. It is whole, or not there.
    """
    copy = file.with_name(f"{file.name}.before-{revision}")
    number = 1
    while copy.exists():
        number += 1
        copy = file.with_name(f"{file.name}.before-{revision}.{number}")
    try:
        with replace_file(copy) as part:
            # An upgrade that was killed may have left one.
            part.unlink(missing_ok=True)
            make_private_file(part)
            with closing(_open_read_only(file)) as source, closing(sqlite3.connect(part)) as target:
                source.backup(target)
            sync_file(part)
        sync_folder(copy.parent)
    except sqlite3.Error as error:
        raise OperationError(f"{file} cannot be copied to {copy.name}: {error}") from None
    return copy


def _open_read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)


@contextmanager
def _look_into(config: AuditConfig, file: Path | None) -> Iterator[Connection]:
    """A connection that may only read."""
    engine: Engine
    if file is not None:
        engine = create_engine("sqlite://", creator=lambda: _open_read_only(file))
    else:
        address = parse_ledger_url(config.state)
        options = {"connect_args": choose_options(address), "hide_parameters": True}
        engine = create_engine(address, **options)
        engine = engine.execution_options(postgresql_readonly=True)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _describe(
    connection: Connection, config: AuditConfig, revision: str, file: Path | None
) -> LedgerUpgrade:
    files, rows = _count_read_anew(connection, config.name)
    return LedgerUpgrade(
        revision=revision,
        newest=find_newest_revision(),
        written_by=_find_writer(connection),
        size=_measure(connection, file),
        free=None if file is None else shutil.disk_usage(file.parent).free,
        migrations=list_migrations(revision),
        at_work=_list_at_work(connection, file),
        files=files,
        rows=rows,
        is_judged_otherwise=_is_judged_otherwise(connection, config),
    )


def list_migrations(revision: str) -> list[Migration]:
    """The migrations from a revision to this version's, in their order."""
    from alembic.script import ScriptDirectory

    directory = ScriptDirectory.from_config(make_migration_config())
    left = [script for script in directory.walk_revisions() if script.revision > revision]
    return [
        Migration(script.revision, " ".join((script.longdoc or script.doc).split()))
        for script in reversed(left)
    ]


def _measure(connection: Connection, file: Path | None) -> int:
    if file is not None:
        parts = (file, file.with_name(f"{file.name}-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())
    query = text("SELECT pg_database_size(current_database())")
    return int(connection.execute(query).scalar_one())


def _find_writer(connection: Connection) -> str | None:
    """The Poisonwatch of the last audit, as its record says; none did before there were records."""
    if not inspect(connection).has_table("records"):
        return None
    query = "SELECT audit_id FROM audits WHERE state = 'finished' ORDER BY audit DESC LIMIT 1"
    audit_id = connection.execute(text(query)).scalar()
    try:
        record = find_audit_record(connection, str(audit_id))
    except PoisonwatchError:
        return None
    said = None if record is None else record.statement.predicate.get("poisonwatch")
    return None if said is None else str(said)


def _list_at_work(connection: Connection, file: Path | None) -> list[str]:
    names = connection.execute(text("SELECT DISTINCT name FROM audits ORDER BY name")).scalars()
    if file is None:
        return [name for name in names.all() if is_session_locked(connection, name)]
    return [name for name in names.all() if is_file_locked(file, name)]


def _count_read_anew(connection: Connection, name: str) -> tuple[int, int]:
    """How many files of an audit's source other rules read, and how many rows they held."""
    query = text("SELECT reading, rows FROM files WHERE audit = :name AND gone_at IS NULL")
    counts = [
        int(rows)
        for reading, rows in connection.execute(query, {"name": name})
        if not _follows_rules(reading)
    ]
    return len(counts), sum(counts)


def _follows_rules(reading: str) -> bool:
    try:
        settings = json.loads(reading)
    except ValueError:
        return False
    return isinstance(settings, dict) and settings.get("rules") == READING_RULES


def _is_judged_otherwise(connection: Connection, config: AuditConfig) -> bool:
    """Whether the last audit's results hold for other settings; those of results that recorded
    none are taken for today's.
    """
    columns = {column["name"] for column in inspect(connection).get_columns("versions")}
    if "settings" not in columns:
        return False
    query = text(
        "SELECT versions.settings FROM audits JOIN versions ON versions.version = audits.version "
        "WHERE audits.name = :name AND audits.state = 'finished' ORDER BY audits.audit DESC LIMIT 1"
    )
    settings = connection.execute(query, {"name": config.name}).scalar()
    return settings is not None and settings != describe_verdict_settings(config)
