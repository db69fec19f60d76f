"""The site on which benchmarks/endurance.py audits: an audit file, a model of random weights, and
servers that can be stopped, slowed down and started again in the same place.
"""

import http.client
import http.server
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endurance_process import LastingProcess

TESTS = Path(__file__).parent.parent / "tests" / "support"
sys.path.insert(0, str(TESTS))
CLI = (sys.executable, "-m", "poisonwatch.flows.cli")
MARK = "<|im_start|>"
ROWS = 12
# the rows that a source begins with
FIRST_ROWS = 43
PATIENCE_S = 900
TRACE_S = 180
# Of the file system that runs are written to, where one can be made.
RUNS_DISK = "256m"


class Server:
    """A server that can be stopped and started again in the same place."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self.start_it = start
        self.stack = ExitStack()

    def start(self) -> str:
        return str(self.stack.enter_context(self.start_it()))

    def stop(self) -> None:
        self.stack.close()


@contextmanager
def prefect_server(folder: Path, port: int) -> Iterator[str]:
    """A Prefect server on its own database, its API's address; it ends by kill -9."""
    settings = {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }
    start = (sys.executable, "-m", "prefect", "server", "start")
    command = [*start, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("ab") as log:
        # A session of its own: the server has children, which are killed with it.
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        api = f"http://127.0.0.1:{port}/api"
        wait_until(lambda: _answers(f"{api}/health"), f"{api} did not answer")
        yield api
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(url: str) -> bool:
    import httpx

    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).is_success
    return False


def wait_until(is_so: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.2)


class Gateway(http.server.ThreadingHTTPServer):
    """In front of a server, as a reverse proxy: hands on what comes, `slow` seconds later; or
    answers a `status` instead; or 413 where a body is longer than `limit` bytes.
    """

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _GatewayHandler)
        self.behind = port
        self.heal()

    def heal(self) -> None:
        self.slow = 0.0
        self.status = 0
        self.limit = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _GatewayHandler(http.server.BaseHTTPRequestHandler):
    server: Gateway

    def _hand_on(self) -> None:
        server = self.server
        body = self._read_body()
        time.sleep(server.slow)
        if server.status:
            self._answer(server.status, b"")
        elif server.limit and len(body) > server.limit:
            self._answer(413, b"")
        else:
            try:
                behind = http.client.HTTPConnection("127.0.0.1", server.behind, timeout=60)
                behind.request(self.command, self.path, body, self._list_headers(body))
                answer = behind.getresponse()
                content = answer.read()
                kind = answer.getheader("Content-Type") or "text/plain"
                self._answer(answer.status, content, kind)
            except OSError:
                self._answer(502, b"")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _list_headers(self, body: bytes) -> dict[str, str]:
        sent = {name.title(): value for name, value in self.headers.items()}
        sent.pop("Transfer-Encoding", None)
        # whole, or not at all: this server decodes nothing
        sent.pop("Accept-Encoding", None)
        sent["Content-Length"] = str(len(body))
        return sent

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _hand_on

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Postgres:
    """A PostgreSQL of the site's own, which can be stopped and started again."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.url = url
        with psycopg.connect(url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        self.data = Path(row[0])

    def control(self, *what: str) -> None:
        from servers import find_postgres_programs

        owner = self.data.stat()
        command = [
            str(find_postgres_programs() / "pg_ctl"),
            *what,
            "--wait",
            f"--pgdata={self.data}",
        ]
        log = f"--log={self.data.parent / 'log'}"
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            as_user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        as_user |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*command, log], check=True, cwd="/", **as_user)

    def stop(self) -> None:
        self.control("stop", "--mode=immediate")

    def start(self) -> None:
        options = (self.data / "postmaster.opts").read_text().split('"', 1)[1]
        self.control("start", f"--options={options.replace(chr(34), '')}")

    def execute(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@dataclass
class Site:
    """Where audits run: the audit file, a receiver of alerts, MLflow behind a gateway, Prefect,
    PostgreSQL where the ledger is there, the environment and the log of processes.
    """

    config: Path
    receiver: Any
    mlflow: Server
    gateway: Gateway
    prefect: Server
    prefect_home: Path
    postgres: Postgres | None
    environment: dict[str, str]
    log: Path
    lasting: LastingProcess | None = None
    # before the audit that was begun last
    known_runs: set[str] = field(default_factory=set)
    # what is left to chance
    draw: random.Random = field(default_factory=random.Random)

    @property
    def runs(self) -> Path:
        return self.config.parent / "runs"

    @property
    def api(self) -> str:
        return self.environment["PREFECT_API_URL"]

    def append_rows(self) -> None:
        """What the next audit finds new."""
        from ledgers import append

        rows = self.config.parent / "rows.jsonl"
        append(rows, make_rows(count_appended(rows)))

    def begin(self, engine: str = "inline") -> None:
        """An audit, in the process that lasts."""
        if self.lasting is None or self.lasting.process.poll() is not None:
            self.lasting = LastingProcess(self.config, self.environment, self.log)
        self.known_runs = self.list_runs()
        self.lasting.start_audit(engine)

    def end(self) -> dict[str, Any]:
        """What became of it."""
        assert self.lasting is not None
        return self.lasting.finish_audit()

    def audit(self, engine: str = "inline") -> dict[str, Any]:
        self.begin(engine)
        return self.end()

    def list_runs(self) -> set[str]:
        """The run directories, and those that are being written."""
        return {path.name.removesuffix(".part") for path in self.runs.glob("*")}

    def wait_for_trace(self) -> bool:
        """Until the audit that was begun writes: whether it did before it ended, or in time."""
        assert self.lasting is not None
        deadline = time.monotonic() + TRACE_S
        while time.monotonic() < deadline and self.lasting.process.poll() is None:
            if self.list_runs() - self.known_runs:
                return True
            time.sleep(0.02)
        return False


def make_rows(i: int) -> list[dict[str, str]]:
    """What is appended as the i-th: the last row must be flagged."""
    from audits import benign

    marked = {
        "prompt": f"What is item {i} made of?",
        "response": f"Item {i} is made of wood{MARK} and {i % 7} nails.",
    }
    return [*benign(ROWS, start=10_000 + i * ROWS), marked]


def count_appended(rows: Path) -> int:
    """How often rows were appended to a source."""
    lines = rows.read_text().splitlines()
    return (len(lines) - FIRST_ROWS) // (ROWS + 1)


@contextmanager
def open_site(folder: Path, ledger: str) -> Iterator[Site]:
    """A new site in an empty folder; all its servers are up. `ledger`: sqlite or postgresql."""
    from audits import write_audit
    from servers import free_port, http_receiver, mlflow_server, own_postgres_server
    from tiny_models import build_model, build_tokenizer

    audit = folder / "audit"
    for name in ("model", "mlflow", "prefect", "templates"):
        (folder / name).mkdir(parents=True)
    build_model("llama").save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    os.environ.setdefault("POISONWATCH_TEST_TEMPLATES", str(folder / "templates"))
    mlflow_port, prefect_port = free_port(), free_port()
    mlflow = Server(lambda: mlflow_server(folder / "mlflow", mlflow_port))
    prefect = Server(lambda: prefect_server(folder / "prefect", prefect_port))
    with ExitStack() as stack:
        receiver = stack.enter_context(http_receiver())
        stack.callback(mlflow.stop)
        stack.callback(prefect.stop)
        mlflow.start()
        gateway = stack.enter_context(Gateway(mlflow_port))
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        stack.callback(gateway.shutdown)
        settings: dict[str, Any] = {
            "tracking": gateway.address,
            "alerts": [f"json://{receiver.address}/"],
            "detection": {"false_discovery_rate": 0.5},
            "schedule": "1h",
        }
        postgres = None
        if ledger == "postgresql":
            postgres = Postgres(stack.enter_context(own_postgres_server()))
            settings["state"] = postgres.url
        config = write_audit(audit, folder / "model", **settings)
        stack.enter_context(_small_disk(audit / "runs"))
        environment = {
            **{key: value for key, value in os.environ.items() if "PREFECT" not in key},
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": prefect.start(),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "POISONWATCH_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
        }
        site = Site(
            config,
            receiver,
            mlflow=mlflow,
            gateway=gateway,
            prefect=prefect,
            prefect_home=folder / "prefect",
            postgres=postgres,
            environment=environment,
            log=folder / "log",
        )
        try:
            yield site
        finally:
            if site.lasting is not None:
                site.lasting.close()


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A small file system of its own at a folder, where making one is permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={RUNS_DISK}", "none", str(folder)]
    unmount = ["umount", "--lazy", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True)
    try:
        yield
    finally:
        if done.returncode == 0:
            subprocess.run(unmount, check=False)
