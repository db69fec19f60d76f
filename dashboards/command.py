"""What `poisonwatch dashboard` does. Heavy imports wait until it really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

import contextlib
import gc
import getpass
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from poisonwatch.errors import ConfigError, InputError, OperationError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from poisonwatch.dashboards.access import Access

SHUTDOWN_S = 3  # that requests have to end in once the dashboard is told to
PASSWORD_VARIABLE = "POISONWATCH_DASHBOARD_PASSWORD"  # noqa: S105  (the name of a variable)


# The options of the command, with their help.
HostOption = Annotated[
    str,
    Parameter(
        help="The address to listen on. Others than this machine's own need a password or a proxy."
    ),
]
PortOption = Annotated[
    int,
    Parameter(validator=validators.Number(gte=0, lte=65535), help="The port; 0 takes a free one."),
]
AllowHostOption = Annotated[
    list[str] | None,
    Parameter(
        consume_multiple=True,
        negative="",
        help="Names under which people open it, beside localhost.",
    ),
]
ProxyHeaderOption = Annotated[
    str | None,
    Parameter(
        help="The header in which a reverse proxy that has logged people in names them, "
        "as X-Forwarded-User."
    ),
]
ProxyOption = Annotated[
    list[str] | None,
    Parameter(
        consume_multiple=True,
        negative="",
        help="Addresses of proxies whose header is believed. Default: this machine.",
    ),
]
ReadOnlyOption = Annotated[
    bool, Parameter(negative="", show_default=False, help="Show everything, decide nothing.")
]


def dashboard(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    allow_host: AllowHostOption = None,
    proxy_header: ProxyHeaderOption = None,
    proxy: ProxyOption = None,
    read_only: ReadOnlyOption = False,
) -> None:
    """Review flagged rows in the browser: see why, decide, release.

    It is served until Ctrl-C. With POISONWATCH_DASHBOARD_PASSWORD set, people log in with it.

    Example: `poisonwatch dashboard my-audit/audit.yaml --port 8765`
    """
    _require_extra()
    from poisonwatch.concealment import conceal_logs
    from poisonwatch.config_file import load_config
    from poisonwatch.dashboards.access import check_access
    from poisonwatch.dashboards.app import create_app

    settings = load_config(config)
    if proxy and proxy_header is None:
        raise InputError(
            "--proxy says whose --proxy-header is believed: give the header's name, too"
        )
    names = [_format_host(host), *(allow_host or ())]
    access = _make_access(names, proxy_header, proxies=proxy or (), read_only=read_only)
    check_access(access, host)
    with _open_listener(host, port) as listener:
        app = create_app(settings, config, access)
        # the socket's own port: --port 0 took one that was free
        port = listener.getsockname()[1]
        address = f"http://{_format_host(host)}:{port}/"
        # whoever started it through a pipe waits for this line
        print(f"dashboard of {settings.name}: {address} (Ctrl-C ends it)", flush=True)
        with conceal_logs(settings.find_secrets()):
            _serve(app, listener)


def _require_extra() -> None:
    """Raises ConfigError where the packages of the extra `dashboard` are not there."""
    # Asked for first: else whichever import needs one would end in a traceback.
    try:
        import itsdangerous  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the dashboard needs more packages: pip install 'poisonwatch[dashboard]'"
        ) from None


def _serve(app: "Starlette", listener: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM, and SHUTDOWN_S longer for requests at work."""
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_level="warning",
        # whom a proxy may speak for is decided in gatekeeper.py, and by its header alone
        proxy_headers=False,
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    # what was imported stays: or else some page would wait half a second until all of it has
    # been looked through
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listener])


def _make_access(
    names: list[str], proxy_header: str | None, proxies: Sequence[str], read_only: bool
) -> "Access":
    """The access that the options and the environment ask for, not checked yet. `names` are those
    that the dashboard answers to beside this machine's own.
    """
    from poisonwatch.dashboards.access import Access

    access = Access(
        user=getpass.getuser(),
        # never an option: a command line is seen by everybody on the machine
        password=os.environ.get(PASSWORD_VARIABLE),
        proxy_header=proxy_header,
        read_only=read_only,
    )
    return replace(access, proxies=tuple(proxies or access.proxies), hosts=(*access.hosts, *names))


def _open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OperationError where the address is taken, or none of this
    machine's.
    """
    family = socket.AF_INET
    if ":" in host:
        family = socket.AF_INET6
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OperationError(
            f"the dashboard cannot listen on {host}:{port} ({error.strerror}): "
            "choose another --host or --port"
        ) from error


def _format_host(host: str) -> str:
    """The host as it stands in an address that people open."""
    # all addresses of the machine are no address: its name leads to one of them
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname()
    if ":" in host:
        return f"[{host}]"
    return host
