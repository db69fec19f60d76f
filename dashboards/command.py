"""What `poisonwatch dashboard` does. Heavy imports wait until it really runs."""

import contextlib
import gc
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from poisonwatch.errors import ConfigError, InputError, OperationError

SHUTDOWN_S = 3  # that requests have to end in once the dashboard is told to
PASSWORD_VARIABLE = "POISONWATCH_DASHBOARD_PASSWORD"  # noqa: S105  (the name of a variable)


def dashboard(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    host: Annotated[
        str,
        Parameter(
            help="The address to listen on. Others than this machine's own need a password or a proxy."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        Parameter(
            validator=validators.Number(gte=0, lte=65535), help="The port; 0 takes a free one."
        ),
    ] = 8765,
    allow_host: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Names under which people open it, beside localhost.",
        ),
    ] = None,
    proxy_header: Annotated[
        str | None,
        Parameter(
            help="The header in which a reverse proxy that has logged people in names them, as X-Forwarded-User."
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Addresses of proxies whose header is believed. Default: this machine.",
        ),
    ] = None,
    read_only: Annotated[
        bool, Parameter(negative="", show_default=False, help="Show everything, decide nothing.")
    ] = False,
) -> None:
    """Serve the review dashboard until it is told to end. With POISONWATCH_DASHBOARD_PASSWORD set,
    people log in with it.
    """
    try:
        import itsdangerous  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError:
        raise ConfigError(
            "the dashboard needs more packages: pip install 'poisonwatch[dashboard]'"
        ) from None
    import getpass

    from poisonwatch.config import load_config
    from poisonwatch.dashboards.access import Access, check_access
    from poisonwatch.dashboards.app import create_app

    settings = load_config(config)
    if proxy and proxy_header is None:
        raise InputError(
            "--proxy says whose --proxy-header is believed: give the header's name, too"
        )
    access = Access(
        getpass.getuser(), os.environ.get(PASSWORD_VARIABLE), proxy_header, read_only=read_only
    )
    access = replace(
        access,
        proxies=tuple(proxy or access.proxies),
        hosts=(*access.hosts, _format_host(host), *(allow_host or ())),
    )
    check_access(access, host)
    with _open_listener(host, port) as listener:
        app = create_app(settings, config, access)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                date_header=False,
                ws="none",
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        print(
            f"dashboard of {settings.name}: http://{_format_host(host)}:{listener.getsockname()[1]}/ (Ctrl-C ends it)",
            flush=True,
        )
        # what was imported stays: or else some page would wait half a second until all of it has
        # been looked through
        gc.freeze()
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OperationError where the address is taken, or none of this
    machine's.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise OperationError(
            f"the dashboard cannot listen on {host}:{port} ({error.strerror}): choose another --host or --port"
        ) from error


def _format_host(host: str) -> str:
    """The host as it stands in an address that people open."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
