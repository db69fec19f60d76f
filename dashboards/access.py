"""Who may come into the dashboard, as it is started: by a password, by a reverse proxy that names
the user, or nobody but whoever is on this machine.

What holds people to it is in `gatekeeper.py`, which runs before any page, and in `login.py`.
"""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from poisonwatch.errors import InputError
from poisonwatch.text.display import excerpt, make_visible

SHORTEST_PASSWORD = 8  # characters

_NAME = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9._-]+", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and what they may do."""

    # who decides where nobody logs in: the user who started the dashboard
    user: str
    # None: nobody is asked
    password: str | None = field(default=None, repr=False)
    # the header in which a reverse proxy names the user
    proxy_header: str | None = None
    # addresses or networks whose header is believed
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    # names under which the dashboard answers, without port
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    read_only: bool = False
    # logins that were not logged out: a cookie that was copied ends with its login
    logins: set[str] = field(default_factory=set, repr=False, compare=False)


def check_access(access: Access, host: str) -> None:
    """Raises InputError where the dashboard must not listen on `host` with this access; the message
    never holds the password.
    """
    if access.password is not None:
        _check_password(access.password, access.proxy_header)
    if access.proxy_header is not None and not _HEADER.fullmatch(access.proxy_header):
        raise InputError(
            f"the proxy header is {excerpt(access.proxy_header)!r}; "
            "a name of letters, digits and - is meant, such as Remote-User"
        )
    for proxy in access.proxies:
        try:
            ip_network(proxy)
        except ValueError:
            raise InputError(
                f"the proxy is {excerpt(proxy)!r}; "
                "an address or a network is meant, such as 10.0.0.7 or 10.0.0.0/24"
            ) from None
    for name in access.hosts:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"the name to answer to (--allow-host) is {excerpt(name)!r}; one without scheme, "
                "port or * is meant, such as audits.example.org or [::1]"
            )
    is_open = access.password is None and access.proxy_header is None
    if is_open and not _is_loopback(host):
        raise InputError(
            f"on {excerpt(host) or 'all addresses'} the dashboard would show rows to whoever "
            "reaches it; set POISONWATCH_DASHBOARD_PASSWORD, or name the header of a reverse "
            "proxy (--proxy-header), or listen on 127.0.0.1"
        )


def _check_password(password: str, proxy_header: str | None) -> None:
    if proxy_header is not None:
        raise InputError(
            "both a password and a proxy header are given; "
            "a reverse proxy that names the user has asked already: leave one out"
        )
    # blanks at its ends are not counted: a password of blanks alone is none
    if len(password.strip()) < SHORTEST_PASSWORD:
        raise InputError(
            f"the dashboard's password is too short; take at least {SHORTEST_PASSWORD} characters"
        )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        # a name, which may lead anywhere
        return False


def clean_user_name(text: str, longest: int) -> str | None:
    """A user's name as one visible line; None where it is empty or longer than `longest`
    characters.
    """
    name = " ".join(make_visible(text).split())
    if 0 < len(name) <= longest:
        return name
    return None
