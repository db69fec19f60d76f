"""Databases that take seconds to make: each is made once by the program whose it is, by the first
process of the tests that asks, and copied by the others.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

# Where they are kept: of one run of the tests, all its processes (tests/conftest.py).
FOLDER = "POISONWATCH_TEST_TEMPLATES"


@functools.cache
def mlflow_database() -> bytes:
    """MLflow's tables, and nothing in them."""
    return _made_once("mlflow.db", _make_mlflow_database)


@functools.cache
def prefect_database() -> bytes:
    """A Prefect server's tables, and nothing in them."""
    return _made_once("prefect.db", _make_prefect_database)


def prefect_home(folder: Path) -> Path:
    """A PREFECT_HOME whose server finds its tables made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prefect.db").write_bytes(prefect_database())
    return folder


def _made_once(name: str, make: Callable[[Path], None]) -> bytes:
    """What `make` leaves at a path of this name."""
    kept = Path(os.environ[FOLDER]) / name
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(prefix="poisonwatch-template-") as folder:
                make(Path(folder) / name)
                shutil.copy(Path(folder) / name, kept)
    return kept.read_bytes()


def _make_mlflow_database(path: Path) -> None:
    ask = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
    _run("-c", ask, f"sqlite:///{path}")


def _make_prefect_database(path: Path) -> None:
    own = {"PREFECT_HOME": str(path.parent), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    _run("-m", "prefect", "server", "database", "upgrade", "-y", **own)


def _run(*arguments: str, **own: str) -> None:
    """A process of its own, so that nothing of it is said in a test."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env={**inherited, **own}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
