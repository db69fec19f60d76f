"""What `poisonwatch dashboard` does. Heavy imports wait until it really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

import contextlib
import gc
import getpass
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter, validators

from poisonwatch import interrupt
from poisonwatch.errors import ConfigError, OperationError

if TYPE_CHECKING:
    import uvicorn

    from poisonwatch.config import AuditConfig
    from poisonwatch.dashboards.access import Access, ProviderSettings

# An identity provider is set up by these; the secret also by <its name>_FILE.
ISSUER_VARIABLE = "POISONWATCH_OIDC_ISSUER"
CLIENT_ID_VARIABLE = "POISONWATCH_OIDC_CLIENT_ID"
CLIENT_SECRET_VARIABLE = "POISONWATCH_OIDC_CLIENT_SECRET"  # noqa: S105  (the name of a variable)
USER_CLAIM_VARIABLE = "POISONWATCH_OIDC_USER_CLAIM"
ROLE_CLAIM_VARIABLE = "POISONWATCH_OIDC_ROLE_CLAIM"


# The options of the command, with their help.
HostOption = Annotated[
    str,
    Parameter(
        help="The address to listen on. Others than this machine's own need users, a password "
        "or a proxy."
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
        "as X-Forwarded-User; it proves itself by POISONWATCH_DASHBOARD_PROXY_SECRET."
    ),
]
ProxyOption = Annotated[
    list[str] | None,
    Parameter(
        name=("--trusted-proxies", "--proxy"),
        consume_multiple=True,
        negative="",
        help="Addresses of reverse proxies: X-Forwarded-For, and --proxy-header, count from there "
        "alone. Default: none; with --proxy-header this machine.",
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
    trusted_proxies: ProxyOption = None,
    read_only: ReadOnlyOption = False,
) -> None:
    """Review flagged rows in the browser: see why, decide, release.

    It is served until Ctrl-C, on this machine alone, for whoever opens the link that it prints.
    Others come in by names and passwords of their own (`poisonwatch users add`), by one password
    for all (POISONWATCH_DASHBOARD_PASSWORD), an identity provider (POISONWATCH_OIDC_ISSUER), or a
    reverse proxy.

    Example: `poisonwatch dashboard my-audit/audit.yaml --port 8765`
    """
    _require_extra()
    from poisonwatch.concealment import conceal_logs
    from poisonwatch.config_file import load_config
    from poisonwatch.dashboards.access import THIS_MACHINE, check_access
    from poisonwatch.dashboards.app import create_app
    from poisonwatch.dashboards.door import Door
    from poisonwatch.dashboards.entrance import TOKEN_PARAMETER
    from poisonwatch.dashboards.serving import make_server

    settings = load_config(config)
    proxies = tuple(trusted_proxies or ())
    if proxy_header is not None and not proxies:
        proxies = THIS_MACHINE
    access = _make_access(
        settings,
        config,
        proxy_header=proxy_header,
        proxies=proxies,
        names=[_format_host(host), *(allow_host or ())],
        read_only=read_only,
    )
    check_access(access, host)
    # whoever ends it while it starts, or later, has ended it in order
    with (
        contextlib.suppress(KeyboardInterrupt),
        interrupt.unwrapped(),
        _open_listener(host, port) as listener,
    ):
        # the socket's own port: --port 0 took one that was free
        address = _choose_address(settings, host, listener.getsockname()[1])

        def announce(token: str) -> None:
            link = f"{address}?{TOKEN_PARAMETER}={token}"
            print(f"a browser has come in; for another: {link}", flush=True)

        door = Door(access, announce)
        link = address
        if access.is_local:
            link += f"?{TOKEN_PARAMETER}={door.entrance.token}"
        server = make_server(create_app(settings, config, door), door.proxies)
        # whoever started it through a pipe waits for this line
        print(f"dashboard of {settings.name}: {link} (Ctrl-C ends it)", flush=True)
        with conceal_logs(settings.find_secrets()):
            _serve(server, listener)


def _require_extra() -> None:
    """Raises ConfigError where the packages of the extra `dashboard` are not there."""
    # Asked for first: else whichever import needs one would end in a traceback.
    try:
        import argon2  # noqa: F401
        import itsdangerous  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the dashboard needs more packages: pip install 'poisonwatch[dashboard]'"
        ) from None


def _serve(server: "uvicorn.Server", listener: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM, and a little longer for requests at work."""
    # what was imported stays: or else some page would wait half a second until all of it has
    # been looked through
    gc.freeze()
    server.run(sockets=[listener])


def _make_access(
    settings: "AuditConfig",
    path: Path,
    *,
    proxy_header: str | None,
    proxies: tuple[str, ...],
    names: list[str],
    read_only: bool,
) -> "Access":
    """The access that the options, the environment and the file of users ask for, not checked yet.
    `names` are those that the dashboard answers to beside this machine's own. Raises InputError.
    """
    from poisonwatch.dashboards.access import (
        PASSWORD_VARIABLE,
        PROXY_SECRET_VARIABLE,
        Access,
    )
    from poisonwatch.dashboards.secret_settings import read_secret
    from poisonwatch.dashboards.users import locate_users, read_users

    users = locate_users(settings, path)
    secret = None
    if proxy_header is not None:
        secret = read_secret(PROXY_SECRET_VARIABLE)
    access = Access(
        user=getpass.getuser(),
        password=read_secret(PASSWORD_VARIABLE),
        users=users if read_users(users) else None,
        provider=_read_provider(settings),
        proxy_header=proxy_header,
        proxy_secret=secret,
        proxies=proxies,
        read_only=read_only,
    )
    return replace(access, hosts=(*access.hosts, *names))


def _read_provider(settings: "AuditConfig") -> "ProviderSettings | None":
    """The identity provider that the environment names; None where it names none."""
    from poisonwatch.dashboards.access import ProviderSettings
    from poisonwatch.dashboards.secret_settings import read_secret

    issuer = os.environ.get(ISSUER_VARIABLE)
    if not issuer:
        return None
    from poisonwatch.dashboards.openid import require_openid

    require_openid()
    return ProviderSettings(
        issuer=issuer,
        client_id=os.environ.get(CLIENT_ID_VARIABLE, ""),
        client_secret=read_secret(CLIENT_SECRET_VARIABLE) or "",
        user_claim=os.environ.get(USER_CLAIM_VARIABLE) or "email",
        role_claim=os.environ.get(ROLE_CLAIM_VARIABLE) or None,
        address=settings.dashboard,
    )


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


def _choose_address(settings: "AuditConfig", host: str, port: int) -> str:
    """Where whoever started the dashboard opens it: as the audit file's links do, where these lead
    here, since a cookie is for one name alone.
    """
    try:
        named = urlsplit(settings.dashboard or "")
        leads_here = named.hostname in ("localhost", host) and named.port == port
    except ValueError:
        leads_here = False
    if leads_here and named.scheme == "http":
        return f"http://{named.netloc}/"
    return f"http://{_format_host(host)}:{port}/"
