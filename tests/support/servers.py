"""Real servers for tests, on this machine and for as long as a test needs them."""

import email
import email.policy
import functools
import http.server
import ipaddress
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import nursery
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from patience import PATIENCE_S
from templates import mlflow_database

PASSWORD = "hunter2"
MLFLOW_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# What the tests of a process share, from its first use to the process's last test.
shared = ExitStack()


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_postgres_programs() -> Path:
    """The folder of initdb and pg_ctl. Skips the test where there are none."""
    found = shutil.which("pg_ctl")
    folders = (
        [Path(found).resolve().parent]
        if found
        else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    )
    if not folders or not (folders[-1] / "initdb").exists():
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    return folders[-1]


@contextmanager
def postgres_server() -> Iterator[str]:
    """An empty database of a PostgreSQL that the tests of a process share, with user ann, password
    hunter2: its URL. Skips the test where PostgreSQL is not installed.
    """
    import psycopg

    server = _shared_postgres()
    name = f"empty_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield server.removesuffix("postgres") + name
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@functools.cache
def _shared_postgres() -> str:
    return shared.enter_context(own_postgres_server())


@contextmanager
def own_postgres_server() -> Iterator[str]:
    """A PostgreSQL of the test's own, whose users and settings it may change: its URL. Making one
    takes seconds.
    """
    programs, port = find_postgres_programs(), free_port()
    as_user: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="poisonwatch-postgres-") as folder:
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            names = [user.pw_name for user in pwd.getpwall()]
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        secret, data, log = Path(folder) / "password", Path(folder) / "data", Path(folder) / "log"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)

        def run(*command: str) -> None:
            environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                **as_user,
            )
            assert done.returncode == 0, (
                done.stdout + done.stderr + (log.read_text() if log.exists() else "")
            )

        run(
            str(programs / "initdb"),
            "--auth=scram-sha-256",
            "--username=ann",
            f"--pwfile={secret}",
            "--no-sync",
            f"--pgdata={data}",
        )
        options = (
            f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off -c timezone=UTC"
        )
        run(
            str(programs / "pg_ctl"),
            "start",
            "--wait",
            f"--pgdata={data}",
            f"--log={log}",
            f"--options={options}",
        )
        try:
            yield f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(str(programs / "pg_ctl"), "stop", "--mode=immediate", f"--pgdata={data}")


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder: whole files only, without ETag."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def web_server(
    folder: Path, handler: Callable[..., http.server.BaseHTTPRequestHandler] = SilentHandler
) -> Iterator[str]:
    """The files of a folder at http://127.0.0.1:PORT, its URL."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def mlflow_store(folder: Path) -> str:
    """A new MLflow store in a folder, its URI: copied, since making its tables takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").write_bytes(mlflow_database())
    return f"sqlite:///{folder / 'mlflow.db'}"


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """An MLflow server on the store in a folder, its URL. Started again on the same folder and
    port, it is the same server.
    """
    port = port or free_port()
    store = (
        f"sqlite:///{folder / 'mlflow.db'}"
        if (folder / "mlflow.db").exists()
        else mlflow_store(folder)
    )
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    log, url = folder / "server.log", f"http://127.0.0.1:{port}"
    with _serving_mlflow(options, folder, log) as lives:
        wait_for_answer(f"{url}/health", lives, log)
        yield url


@contextmanager
def _serving_mlflow(options: list[str], folder: Path, log: Path) -> Iterator[Callable[[], bool]]:
    """`mlflow server` in a process: whether that lives."""
    if nursery.is_open():
        needs = ["mlflow.cli", "mlflow.server.handlers", "mlflow.server.fastapi_app", "uvicorn"]
        forked = nursery.Forked(serve_mlflow, needs, log, options=options, folder=str(folder))
        try:
            yield forked.lives
        finally:
            forked.end()
        return
    with log.open("ab") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            env={**os.environ, **MLFLOW_SETTINGS},
            cwd=folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield lambda: server.poll() is None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def serve_mlflow(options: list[str], folder: str) -> None:
    """`mlflow server`, but that it serves in this process, where it would start another."""
    import mlflow.cli
    import mlflow.server
    import uvicorn

    def serve(command: list[str], extra_env: dict[str, str], **_: object) -> None:
        os.environ.update(extra_env)
        uvicorn.main(command[command.index("uvicorn") + 1 :])

    os.environ.update(MLFLOW_SETTINGS)
    os.chdir(folder)
    mlflow.server._exec_cmd = serve
    mlflow.cli.cli(["server", *options])


def wait_for_answer(url: str, lives: Callable[[], bool], log: Path) -> None:
    """Until a server answers; what it said, where it ends before that."""
    deadline = time.monotonic() + PATIENCE_S
    while not _answers(url):
        assert lives(), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(frozen=True)
class Answer:
    """How a receiver answers one request: with a `status` and `headers`, once `after` happened; or
    it `resets` the connection.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None
    resets: bool = False


class HttpReceiver(http.server.ThreadingHTTPServer):
    """Takes what is posted to it: `received`, JSON decoded, the `paths` that it came to and the
    `times` (of a clock that never goes back); while `answer` is not 200 it refuses with that,
    keeping what was `refused`. The `script` comes first: an answer a request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ReceiverHandler)
        self.answer = 200
        self.answer_body = b"ok"
        self.script: list[Answer] = []
        self.received: list[Any] = []
        self.refused: list[Any] = []
        self.paths: list[str] = []
        self.times: list[float] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _ReceiverHandler(http.server.BaseHTTPRequestHandler):
    server: HttpReceiver

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        answer = server.script.pop(0) if server.script else Answer(server.answer)
        taken = answer.status == 200 and answer.after is None and not answer.resets
        (server.received if taken else server.refused).append(sent)
        if taken:
            server.paths.append(self.path)
            server.times.append(time.monotonic())
        if answer.resets:
            # nothing is left unread, so without this the connection would end in peace
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return
        if answer.after is not None:
            answer.after.wait(60)
        with suppress(OSError):  # whoever asked may have gone
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(server.answer_body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def http_receiver(certificate: Path | None = None) -> Iterator[HttpReceiver]:
    """Somebody to be told, by HTTP; with a file of a `certificate` and its key, by HTTPS."""
    with HttpReceiver() as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def write_certificate(path: Path) -> Path:
    """A certificate of 127.0.0.1 that it signed itself, with its key: good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


class SmtpReceiver:
    """Takes mail: `received`."""

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.received.append(
            cast(
                EmailMessage,
                email.message_from_bytes(envelope.content, policy=email.policy.default),
            )
        )
        return "250 OK"


@contextmanager
def smtp_receiver() -> Iterator[tuple[SmtpReceiver, int]]:
    """Somebody to be told, by mail, and the port."""
    from aiosmtpd.controller import Controller

    receiver = SmtpReceiver()
    server = Controller(receiver, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        yield receiver, server.port
    finally:
        server.stop()
