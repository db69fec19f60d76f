"""The web server under the dashboard."""

import uvicorn
from starlette.applications import Starlette

from poisonwatch.dashboards.addresses import Proxies
from poisonwatch.dashboards.connections import make_protocol

SHUTDOWN_S = 3  # that requests have to end in once the dashboard is told to


def make_server(app: Starlette, proxies: Proxies, port: int | None = None) -> uvicorn.Server:
    """A server for the application. It answers on sockets that it is given, or on a `port` of this
    machine.
    """
    settings = uvicorn.Config(
        app,
        port=port or 0,
        log_level="warning",
        http=make_protocol(proxies),
        # whom a proxy may speak for is decided in door.py
        proxy_headers=False,
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return uvicorn.Server(settings)
