"""What the campaign of benchmarks/attack.py attacks: a tiny audit that signs, and a line of its
table.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SUPPORT = ROOT / "tests" / "support"
CLI = (sys.executable, "-m", "poisonwatch.flows.cli")


@dataclass(frozen=True)
class Line:
    """A line of the table: what was done how often, what is asked, and what came of it."""

    what: str
    count: int
    asked: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Site:
    """An audit file, its keys, and a receiver of its alerts."""

    config: Path
    receiver: Any
    public_key: Path

    @property
    def folder(self) -> Path:
        return self.config.parent


def keep_templates(folder: Path) -> None:
    """Have databases that the helpers of the tests make once lie below a folder."""
    templates = folder / "templates"
    templates.mkdir(exist_ok=True)
    os.environ.setdefault("POISONWATCH_TEST_TEMPLATES", str(templates))


def use_test_support() -> None:
    """Let the helpers of the tests be imported: tiny models, servers, rows."""
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))


def build_model_folder(folder: Path) -> Path:
    """A Llama of three blocks and random weights, saved once for a whole campaign."""
    use_test_support()
    from tiny_models import build_model, build_tokenizer

    path = folder / "model"
    if not path.exists():
        part = folder / "model.part"
        build_model("llama").save_pretrained(part)
        build_tokenizer().save_pretrained(part)
        part.rename(path)
    return path


@contextmanager
def prepare_site(folder: Path, model: Path, **settings: Any) -> Iterator[Site]:
    """An audit of 43 rows whose records are signed, and somebody who is told."""
    use_test_support()
    from audits import write_audit
    from servers import http_receiver, mlflow_store

    from poisonwatch.attestation.keys import create_keys

    keys = create_keys(folder / "keys")
    with http_receiver() as receiver:
        config = write_audit(
            folder,
            model,
            tracking=mlflow_store(folder / "tracking"),
            alerts=[f"json://{receiver.address}/"],
            detection={"false_discovery_rate": 0.5},
            signing={"key": str(keys.private), "public": [str(keys.public)]},
            **settings,
        )
        yield Site(config, receiver, keys.public)


def run_forked(work: Callable[[], None], log: Path) -> int:
    """Run something in a process of its own, which has everything imported already; returns its
    process id. What it raises goes to the log, and is exit code 1.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    with log.open("a") as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            work()
            code = 0
        except BaseException:
            traceback.print_exc(file=file)
        finally:
            file.flush()
            os._exit(code)


def run_cli(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment["POISONWATCH_CACHE"] = str(folder / "cache")
    return subprocess.run(
        [*CLI, *words], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@contextmanager
def postgres_databases() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server, and a function that makes a database of a name there: its URL."""
    use_test_support()
    import psycopg
    from servers import own_postgres_server

    with own_postgres_server() as url:

        def create(name: str) -> str:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return url.rpartition("/")[0] + f"/{name}"

        yield create
