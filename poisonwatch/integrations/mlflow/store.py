"""MLflow's own store in a file of SQLite: of which of MLflow's revisions it is, and its upgrade.

MLflow refuses a store of an earlier version at times, and migrates it at others, as its tables
are. A server's store is upgraded where the server is.
"""

import ast
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.text.environment import open_variables
from poisonwatch.text.sqlite_files import find_sqlite_file


@dataclass(frozen=True, slots=True)
class StoreState:
    """The file of a store, the revision of its tables, and the one of the MLflow that is installed.
    `is_newer`: this MLflow does not know the store's.
    """

    file: Path
    revision: str
    newest: str
    is_newer: bool

    @property
    def is_current(self) -> bool:
        """Whether nothing lies between."""
        return self.revision == self.newest


def find_store(config: AuditConfig) -> StoreState | None:
    """The audit's MLflow store, if it is a file of SQLite and there. MLflow is not imported.

    Raises OperationError where it cannot be read.
    """
    file = _find_file(config)
    package = find_spec("mlflow")
    if file is None or package is None or not package.submodule_search_locations:
        return None
    revision = _read_revision(file)
    if revision is None:
        return None
    scripts = Path(package.submodule_search_locations[0]) / "store" / "db_migrations" / "versions"
    known = _read_revisions(scripts)
    newest = (set(known) - set(known.values())).pop()
    return StoreState(file, revision, newest, revision not in known)


def _read_revisions(scripts: Path) -> dict[str, str | None]:
    """The revisions of MLflow's migrations, each with the one before it: read from the scripts,
    which import MLflow where they are run.
    """
    found: dict[str, str | None] = {}
    for path in scripts.glob("*.py"):
        said: dict[str, Any] = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    said[ast.unparse(target)] = node.value.value
        if "revision" in said:
            found[said["revision"]] = said.get("down_revision")
    return found


def upgrade_store(file: Path) -> None:
    """Have MLflow bring a store up to its own version. Raises OperationError where it does not."""
    # Its command is what MLflow promises: a process of its own.
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{file}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it did not say why"])[-1]
        raise OperationError(
            f"MLflow cannot upgrade its store {file}: {said}; the copy from before is beside it"
        )


def _find_file(config: AuditConfig) -> Path | None:
    if config.tracking is None:
        return None
    scheme, _, place = open_variables(config.tracking, "tracking").partition(":///")
    if scheme != "sqlite":
        return None
    file = find_sqlite_file(place)
    return file if file is not None and file.is_file() else None


def _read_revision(file: Path) -> str | None:
    """None where MLflow has made no tables yet."""
    address = f"file:{quote(str(file))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            query = "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
            if database.execute(query).fetchone() is None:
                return None
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise OperationError(f"MLflow's store {file} cannot be read: {error}") from None
    return None if found is None else str(found[0])
