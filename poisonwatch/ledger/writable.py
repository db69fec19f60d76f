"""Whether an audit could write into its ledger, asked without making or changing one."""

import os
import tempfile
import time
from errno import EACCES, ENOENT, ENOTDIR
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from poisonwatch.errors import OperationError
from poisonwatch.ledger.database import describe_failure, is_busy, make_engine, read_revision
from poisonwatch.ledger.file_faults import refuse_unfit_file
from poisonwatch.text.secrets import conceal
from poisonwatch.text.sqlite_files import find_sqlite_file, is_made

IS_READ_ONLY = text(
    "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean"
)

# That whoever opens or closes the ledger is waited for, and how often it is looked at.
PATIENCE_S = 10
PAUSE_S = 0.05


def require_writable(url: str) -> None:
    """Raises what opening the ledger at a URL and a first transaction would, also where none is
    there yet.
    """
    engine = make_engine(url, wait_s=0)
    path = find_sqlite_file(engine.url.database) if engine.dialect.name == "sqlite" else None
    try:
        if path is not None:
            refuse_unfit_file(path)
        if path is not None and not is_made(path):
            _require_folder(path)
        else:
            _try_transaction(engine, conceal(url, url))
    # UnicodeError: a host name that no name server could be asked for.
    except (SQLAlchemyError, OSError, UnicodeError) as error:
        raise OperationError(f"the ledger at {describe_failure(url, error)}") from None
    finally:
        engine.dispose()


def _require_folder(path: Path) -> None:
    """Raises OSError where no file could be made there; its folder may be still to be made, unless
    a link names it.
    """
    if path.is_symlink():
        path = path.resolve()
        if not path.parent.is_dir():
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(path.parent))
    for folder in path.parents:
        if folder.is_dir():
            _make_for_a_moment(folder)
            return
        if folder.exists():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(folder))


def _make_for_a_moment(folder: Path) -> None:
    """Raises OSError where no file can be made in a folder. Rights do not tell: those of /proc say
    that one can.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        # The name that it had been given is nobody's.
        number = error.errno or EACCES
        raise OSError(f"no file can be made in {str(folder)!r}: {os.strerror(number)}") from None


def _try_transaction(engine: Engine, shown: str) -> None:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            _write_for_a_moment(connection)
        elif connection.execute(IS_READ_ONLY).scalar_one():
            raise OperationError(
                f"the ledger at {shown} is read-only, as its server is: an audit writes into it"
            )
        # of a newer version, or somebody else's tables
        _try_to_read(connection, shown)
        connection.rollback()


def _try_to_read(connection: Connection, shown: str) -> None:
    """Raises what reading the ledger's version does. Whoever opens or closes it has it alone for a
    moment, in which it cannot be read either, and is waited for as opening it waits.
    """
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            read_revision(connection, shown)
            return
        except OperationalError as error:
            if not is_busy(error.orig) or time.monotonic() >= give_up:
                raise
        connection.rollback()
        time.sleep(PAUSE_S)


def _write_for_a_moment(connection: Connection) -> None:
    """In a transaction that the caller rolls back."""
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        # Of what is read-only, BEGIN alone makes a transaction that reads.
        connection.exec_driver_sql("CREATE TABLE poisonwatch_trial (n)")
    except OperationalError as error:
        # Whoever writes at this moment can.
        if not is_busy(error.orig):
            raise
