"""MLflow's store in a file is upgraded by MLflow, and looked at without it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.store import find_store, upgrade_store

# MLflow's first tables and its migrations up to one of them.
MAKE_OLDER = """
import sys
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
url = sys.argv[1]
Base.metadata.create_all(sqlalchemy.create_engine(url))
config = _get_alembic_config(url)
directory = ScriptDirectory.from_config(config)
command.upgrade(config, directory.get_revision(directory.get_current_head()).down_revision)
"""


def configure(tracking: str) -> AuditConfig:
    return AuditConfig.model_validate(
        {"name": "tiny", "source": "rows.jsonl", "sentinels": "s.yaml", "tracking": tracking}
    )


def test_a_store_of_this_mlflow_is_current(tmp_path: Path) -> None:
    """The revision in the file is that of MLflow's last migration."""
    found = find_store(configure(mlflow_store(tmp_path)))
    assert found is not None
    assert found.is_current
    assert not found.is_newer


def test_a_store_of_an_earlier_mlflow_is_upgraded_by_mlflow(tmp_path: Path) -> None:
    """One migration short; then it is current."""
    file = tmp_path / "old.db"
    make = [sys.executable, "-c", MAKE_OLDER, f"sqlite:///{file}"]
    subprocess.run(make, check=True, capture_output=True)
    config = configure(f"sqlite:///{file}")
    found = find_store(config)
    assert found is not None
    assert (found.is_current, found.is_newer) == (False, False)
    upgrade_store(found.file)
    found = find_store(config)
    assert found is not None
    assert found.is_current


def test_a_store_of_a_newer_mlflow_is_told_and_not_upgraded(tmp_path: Path) -> None:
    """MLflow's own words are in the error."""
    config = configure(mlflow_store(tmp_path))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    database.close()
    found = find_store(config)
    assert found is not None
    assert found.is_newer
    with pytest.raises(OperationError, match="ffffffffffff"):
        upgrade_store(found.file)


@pytest.mark.parametrize("tracking", ["http://127.0.0.1:9", "sqlite:///none.db"])
def test_a_server_and_a_file_that_is_not_there_are_no_store(tracking: str) -> None:
    """Neither is looked at."""
    assert find_store(configure(tracking)) is None
