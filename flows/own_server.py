"""A Prefect server of our own, where none is configured: it listens on this machine alone, and ends
with whoever started it.

A small file in Prefect's home says which processes it is, and whose. A watch that was killed leaves
its server behind; the next one recognises it by that file, and takes it over.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import prefect
import psutil
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)

from poisonwatch.atomic import replace_file
from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.homes import has_room
from poisonwatch.flows.reporter import Reporter

VACUUM = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
START_UP_S = 120  # that a server may take on a busy machine
SHUT_DOWN_S = 20
# By which the start of a process, as seconds of the epoch, may differ from what was written down:
# the system's clock is set now and then.
SAME_START_S = 5


class OwnServer:
    """A Prefect server at 127.0.0.1:`port`."""

    def __init__(self, port: int, reporter: Reporter) -> None:
        self.port = port
        self.api = f"http://127.0.0.1:{port}/api"
        self._note = reporter.note
        # the command and what it started: Prefect's command has the server in a process of its own
        self._processes: Sequence[psutil.Process] = ()

    @property
    def _record_file(self) -> Path:
        return Path(PREFECT_HOME.value()) / f"poisonwatch-server-{self.port}.json"

    def open(self) -> None:
        """Start the server, or take over the one that a killed watch left. Raises InputError where
        something else listens on the port, OperationError where the server does not start.
        """
        orphan = self._find_orphan()
        if orphan:
            self._adopt(orphan)
        if self._processes:
            return
        if is_healthy(self.api):
            raise InputError(
                f"something answers on port {self.port} already: set PREFECT_API_URL={self.api} "
                "if it is a Prefect server, or choose another --port"
            )
        self._note(
            "no Prefect server is configured (PREFECT_API_URL): "
            f"starting one at http://127.0.0.1:{self.port} ..."
        )
        self._start()

    def revive(self) -> None:
        """Start the server again where it has ended. Raises OperationError where it does not
        start.
        """
        if all(is_alive(process) for process in self._processes):
            return
        self._note(f"our Prefect server at {self.api} has ended: starting it again ...")
        self.end()
        self._start()

    def end(self) -> None:
        """End the server, and wait until it has ended."""
        # held, since whoever presses Ctrl-C twice would leave the server behind
        with hold_signals():
            end_processes(self._processes)
            self._processes = ()
            with contextlib.suppress(OSError):
                self._record_file.unlink(missing_ok=True)

    def _start(self) -> None:
        # held, so that no signal falls between the start and the assignment
        with hold_signals():
            started = _start_server(self.port)
            self._processes = [started]
        self._write_record()
        _wait_until_healthy(started, self.api)
        self._processes = [started, *started.children(recursive=True)]
        self._write_record()

    def _adopt(self, orphan: list[psutil.Process]) -> None:
        """Take the server of a killed watch over where it is in order, for the sake of an audit
        that may be at work on it; end it otherwise.
        """
        left = f"a watch that was killed left its Prefect server at {self.api}"
        if is_healthy(self.api) and _read_version(self.api) == prefect.__version__:
            self._note(f"{left}: taking it over")
            self._processes = orphan
            self._write_record()
            return
        self._note(f"{left}, of another version or out of order: ending it")
        end_processes(orphan)

    def _find_orphan(self) -> list[psutil.Process]:
        """The processes of a server that a watch started and did not live to end."""
        try:
            record = json.loads(self._record_file.read_text(encoding="utf-8"))
            if _find_process(record["watch"]) is not None:
                return []
            found = [_find_process(entry) for entry in record["server"]]
        except (OSError, ValueError, KeyError, TypeError):
            # no such file, or none of ours: then whatever listens is somebody else's
            return []
        return [process for process in found if process is not None]

    def _write_record(self) -> None:
        record = {
            "watch": _describe(psutil.Process()),
            "server": [_describe(process) for process in self._processes],
        }
        # the file serves the next watch alone: this one does without
        with contextlib.suppress(OSError, psutil.Error):
            self._record_file.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(self._record_file) as part:
                part.write_text(json.dumps(record), encoding="utf-8")


@contextlib.contextmanager
def open_server(port: int, reporter: Reporter) -> Iterator[tuple[str, OwnServer | None]]:
    """The API of the configured Prefect server; without one, of a local one that ends with the
    block, and that one. Raises InputError where something else listens on `port`, OperationError
    where the server does not start.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        yield str(configured), None
        return
    own = OwnServer(port, reporter)
    settings = {PREFECT_API_URL: own.api}
    # a server that asks everybody who they are asks us, too
    secret = PREFECT_SERVER_API_AUTH_STRING.value()
    if secret is not None and PREFECT_API_AUTH_STRING.value() is None:
        settings[PREFECT_API_AUTH_STRING] = secret
    # the processes of flow runs inherit the environment alone
    environment = {setting.name: value for setting, value in settings.items()}
    try:
        with temporary_settings(settings), _set_environment(environment):
            own.open()
            yield own.api, own
    finally:
        own.end()


@contextlib.contextmanager
def _set_environment(variables: dict[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def _start_server(port: int) -> psutil.Popen:
    own = {
        # nobody but this machine: a Prefect server asks nobody who they are
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # flow runs go 90 days after their end: a year of hourly audits is 8,760 of them
        VACUUM: os.environ.get(VACUUM, "events,flow_runs"),
    }
    return psutil.Popen(
        [sys.executable, "-m", "prefect", "server", "start"],
        env={**os.environ, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for us: a run at work still has to tell it how it ended
        start_new_session=True,
    )


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """End the first, which ends the others; what is left after SHUT_DOWN_S seconds is killed."""
    for process in processes[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=SHUT_DOWN_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=SHUT_DOWN_S)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs: one that has ended and was not waited for does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _describe(process: psutil.Process) -> dict[str, Any]:
    return {"pid": process.pid, "started": process.create_time()}


def _find_process(entry: dict[str, Any]) -> psutil.Process | None:
    """The process that `_describe` described, if it still runs: ids are given out again."""
    try:
        process = psutil.Process(entry["pid"])
        apart = abs(process.create_time() - entry["started"])
    except psutil.NoSuchProcess:
        return None
    if apart > SAME_START_S or not is_alive(process):
        return None
    return process


@contextlib.contextmanager
def hold_signals() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the end of the block: in the middle of it a process would be
    lost, and run for ever.
    """
    came: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # what was held comes now, both signals as the one interrupt that ends a watch
    if came:
        raise KeyboardInterrupt


def _wait_until_healthy(process: psutil.Popen, api: str) -> None:
    """Raises OperationError where the server ends, or START_UP_S seconds pass."""
    deadline = time.monotonic() + START_UP_S
    while not is_healthy(api):
        # a server that cannot have its port ends at once: nobody waits two minutes for it
        if process.poll() is not None or time.monotonic() > deadline:
            home = Path(PREFECT_HOME.value())
            why = "try `prefect server start` to see why, or another --port"
            if not has_room(home):
                why = (
                    f"its disk is full ({home}): free space, or name another folder in PREFECT_HOME"
                )
            raise OperationError(f"the Prefect server did not start at {api}: {why}")
        time.sleep(0.3)


def is_healthy(api: str) -> bool:
    """Whether a server answers at `api` that calls itself in order."""
    try:
        return _ask(f"{api}/health").is_success
    except httpx.HTTPError:
        return False


def _read_version(api: str) -> str | None:
    """The version of the server; None where it does not say."""
    try:
        answer = _ask(f"{api}/admin/version")
        return str(answer.json()) if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _ask(url: str) -> httpx.Response:
    secret = PREFECT_API_AUTH_STRING.value()
    login = None
    if secret is not None:
        name, _, password = secret.partition(":")
        login = httpx.BasicAuth(name, password)
    # this machine's: no proxy is asked for it, whatever the environment says
    return httpx.get(url, timeout=2, auth=login, trust_env=False)
