"""A Prefect server for flows that tests run in their own process."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nursery
from patience import PATIENCE_S
from servers import free_port, wait_for_answer
from templates import prefect_database


@contextmanager
def prefect_server() -> Iterator[None]:
    """A real server with nothing in it: what Prefect's own `prefect_test_harness` gives, but that
    its tables are copied, and that it is a fork where there is a nursery. To make the one and to
    import the other takes some seconds of a processor each.
    """
    # Prefect's server takes as long to import, and most processes of the tests need none.
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_URL,
        temporary_settings,
    )

    with tempfile.TemporaryDirectory(prefix="poisonwatch-prefect-") as name:
        folder = Path(name)
        (folder / "prefect.db").write_bytes(prefect_database())
        with (
            _serving(folder) as url,
            temporary_settings(updates={PREFECT_API_URL: url}),
            # for threads of Prefect's that began before
            _temporary_global_settings_context(get_settings_context()),
        ):
            yield
            # What is still to be sent is sent while there is somebody to take it.
            with suppress(RuntimeError):  # nothing was logged
                APILogWorker.instance().drain()
            EventsWorker.drain_all()


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """A server's address."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    database, port = f"sqlite+aiosqlite:///{folder / 'prefect.db'}", free_port()
    with temporary_settings(updates={PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
        if nursery.is_open():
            log, url = folder / "server.log", f"http://127.0.0.1:{port}/api"
            needs = ["prefect.server.api.server", "uvicorn"]
            forked = nursery.Forked(serve_prefect, needs, log, database=database, port=port)
            try:
                wait_for_answer(f"{url}/health", forked.lives, log)
                yield url
            finally:
                forked.end()
            return
        process = SubprocessASGIServer(port=port)
        process.start(timeout=PATIENCE_S)
        try:
            yield process.api_url
        finally:
            process.stop()


def serve_prefect(database: str, port: int) -> None:
    """What `SubprocessASGIServer` has a process do: serve until told to end."""
    import uvicorn
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.settings import (
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        PREFECT_UI_ENABLED,
        temporary_settings,
    )

    os.environ |= {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    own = {PREFECT_SERVER_DATABASE_CONNECTION_URL: database, PREFECT_UI_ENABLED: False}
    with (
        temporary_settings(updates=own),
        _temporary_global_settings_context(get_settings_context()),
    ):
        uvicorn.run(
            "prefect.server.api.server:create_app",
            factory=True,
            host="127.0.0.1",
            port=port,
            log_level="error",
            lifespan="on",
        )
