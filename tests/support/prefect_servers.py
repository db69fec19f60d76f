"""A Prefect server for flows that tests run in their own process."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from patience import PATIENCE_S
from servers import free_port
from templates import prefect_database


@contextmanager
def prefect_server() -> Iterator[None]:
    """A real server with nothing in it: what Prefect's own `prefect_test_harness` gives, but that
    its tables are copied. Making them takes some seconds of a processor.
    """
    # Prefect's server takes as long to import, and most processes of the tests need none.
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        temporary_settings,
    )

    with tempfile.TemporaryDirectory(prefix="poisonwatch-prefect-") as folder:
        file = Path(folder) / "prefect.db"
        file.write_bytes(prefect_database())
        database = f"sqlite+aiosqlite:///{file}"
        with temporary_settings(updates={PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
            server = SubprocessASGIServer(port=free_port())
            server.start(timeout=PATIENCE_S)
            with (
                temporary_settings(updates={PREFECT_API_URL: server.api_url}),
                # for threads of Prefect's that began before
                _temporary_global_settings_context(get_settings_context()),
            ):
                try:
                    yield
                    # What is still to be sent is sent while there is somebody to take it.
                    with suppress(RuntimeError):  # nothing was logged
                        APILogWorker.instance().drain()
                    EventsWorker.drain_all()
                finally:
                    server.stop()
