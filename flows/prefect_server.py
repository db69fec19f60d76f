"""The Prefect server: one of our own where none is configured, and whether a server is gone.

A server that is down, or goes down, is no reason to give up an audit: the ledger holds the results,
and what Prefect missed is told later (`poisonwatch sync`).
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.reporter import Reporter

START_UP_S = 120  # that a server may take on a busy machine
SHUT_DOWN_S = 20
# What Prefect says, in a RuntimeError, where nobody answers; the second, where a server that
# answered before went away.
GONE_MESSAGES = ("Failed to reach API", "error threshold")


def is_server_gone(error: BaseException) -> bool:
    """Whether an error comes from a server that nobody answers at, or that is out of order: rather
    than from something of ours.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_server_gone(one) for one in error.exceptions)
    if isinstance(error, PrefectHTTPStatusError):
        # 4xx is an answer: the server is there, and does not like what we asked
        return error.response.is_server_error
    if isinstance(error, httpx.TransportError):
        return True
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in GONE_MESSAGES)
    return False


@contextlib.contextmanager
def open_server(port: int, reporter: Reporter) -> Iterator[str]:
    """The API of the configured Prefect server; without one, of a local one that ends with the
    block. Raises InputError where something else listens on `port`, OperationError where the server
    does not start.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        yield str(configured)
        return
    api = f"http://127.0.0.1:{port}/api"
    if _is_healthy(api):
        raise InputError(
            f"something answers on port {port} already: set PREFECT_API_URL={api} if it is a "
            "Prefect server, or choose another --port"
        )
    reporter.note(
        "no Prefect server is configured (PREFECT_API_URL): "
        f"starting one at http://127.0.0.1:{port} ..."
    )
    process = None
    try:
        # held, so that no signal falls between the start and the assignment
        with _hold_signals():
            process = _start_server(port)
        _wait_until_healthy(process, api)
        # for the processes of flow runs, which inherit the environment alone
        os.environ["PREFECT_API_URL"] = api
        with temporary_settings({PREFECT_API_URL: api}):
            yield api
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        if process is not None:
            _end_server(process)


def _start_server(port: int) -> subprocess.Popen[bytes]:
    own = {
        # nobody but this machine: a Prefect server asks nobody who they are
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start"],
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for us: a run at work still has to tell it how it ended
        start_new_session=True,
    )


def _end_server(process: subprocess.Popen[bytes]) -> None:
    # held, since whoever presses Ctrl-C twice would leave the server behind
    with _hold_signals():
        process.terminate()
        try:
            process.wait(SHUT_DOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _hold_signals() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the end of the block: in the middle of it a server would be lost,
    and run for ever.
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


def _wait_until_healthy(process: subprocess.Popen[bytes], api: str) -> None:
    """Raises OperationError where the server ends, or START_UP_S seconds pass."""
    deadline = time.monotonic() + START_UP_S
    while not _is_healthy(api):
        # a server that cannot have its port ends at once: nobody waits two minutes for it
        if process.poll() is not None or time.monotonic() > deadline:
            raise OperationError(
                f"the Prefect server did not start at {api}: "
                "try `prefect server start` to see why, or another --port"
            )
        time.sleep(0.3)


def _is_healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
