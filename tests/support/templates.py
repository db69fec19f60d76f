"""Databases that take long to make: each is made once by the program whose it is, by the first
process of the tests that asks, and copied by the others. MLflow's and Prefect's take seconds, and
are kept for later runs; a ledger's takes a tenth of one, hundreds of times.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

# Where they are kept: of one run of the tests, all its processes; and where those of other packages
# are, for later runs, if anywhere (tests/conftest.py).
FOLDER = "POISONWATCH_TEST_TEMPLATES"
LASTING_FOLDER = "POISONWATCH_LASTING_TEMPLATES"


@functools.cache
def mlflow_database() -> bytes:
    """MLflow's tables, and nothing in them."""
    return _made_once("mlflow.db", _make_mlflow_database, "mlflow")


@functools.cache
def prefect_database() -> bytes:
    """A Prefect server's tables, and nothing in them."""
    return _made_once("prefect.db", _make_prefect_database, "prefect")


@functools.cache
def ledger_database() -> bytes:
    """A ledger's tables, and nothing in them."""
    return _made_once("ledger.db", _make_ledger_database)


def prefect_home(folder: Path) -> Path:
    """A PREFECT_HOME whose server finds its tables made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prefect.db").write_bytes(prefect_database())
    return folder


def _made_once(name: str, make: Callable[[Path], None], package: str | None = None) -> bytes:
    """What `make` leaves at a path of this name: of a package, what its version makes."""
    kept = Path(os.environ[FOLDER]) / name
    if package and LASTING_FOLDER in os.environ:
        kept = Path(os.environ[LASTING_FOLDER]) / f"{version(package)}-{name}"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(prefix="poisonwatch-template-") as folder:
                make(Path(folder) / name)
                part = kept.with_name(f"{kept.name}.part")
                shutil.copy(Path(folder) / name, part)
                part.rename(kept)
    return kept.read_bytes()


def _make_ledger_database(path: Path) -> None:
    from poisonwatch.ledger.ledger import Ledger

    with Ledger.at(f"sqlite:///{path}"):
        pass


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
