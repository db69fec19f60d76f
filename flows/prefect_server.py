import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.reporter import Reporter

START_UP_S = 120  # that a server may take on a busy machine


def is_server_gone(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(is_server_gone(one) for one in error.exceptions)
    said = (
        "Failed to reach API",
        "error threshold",
    )  # the second, where a server that answered before went away
    return isinstance(error, httpx.TransportError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


@contextlib.contextmanager
def open_server(port: int, reporter: Reporter) -> Iterator[str]:
    """The API of the configured Prefect server; without one, of a local one that ends with the
    block.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        yield str(configured)
        return
    api = f"http://127.0.0.1:{port}/api"
    if _is_healthy(api):
        raise InputError(
            f"something answers on port {port} already: set PREFECT_API_URL={api} if it is a Prefect server, or choose another --port"
        )
    reporter.note(
        f"no Prefect server is configured (PREFECT_API_URL): starting one at http://127.0.0.1:{port} ..."
    )
    own = {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    process = None
    try:
        with _hold_signals():
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start"],
                env={**os.environ, **own},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for us: a run at work still has to tell it how it ended
                start_new_session=True,
            )
        _wait_until_healthy(process, api)
        os.environ["PREFECT_API_URL"] = api  # for the processes of flow runs
        with temporary_settings({PREFECT_API_URL: api}):
            yield api
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        if process is not None:
            with _hold_signals():
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def _hold_signals() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the end of the block: in the middle of it a server would be lost,
    and run for ever.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _wait_until_healthy(process: subprocess.Popen[bytes], api: str) -> None:
    deadline = time.monotonic() + START_UP_S
    while not _is_healthy(api):
        if process.poll() is not None or time.monotonic() > deadline:
            raise OperationError(
                f"the Prefect server did not start at {api}: try `prefect server start` to see why, or another --port"
            )
        time.sleep(0.3)


def _is_healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
