"""Who may come into the dashboard, as it is started. One of these says who people are:

- nobody but who started it, by a link that is printed and works once (`entrance.py`);
- one password for all, under names that nobody checks (`login.py`);
- people with passwords of their own (`users.py`, `login.py`);
- an identity provider (`openid.py`), beside people with passwords or without;
- a reverse proxy that has logged people in, and proves itself by a secret.

What holds people to it is in `gatekeeper.py`, which runs before any page.
"""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from poisonwatch.errors import InputError
from poisonwatch.text.display import excerpt, make_visible

SHORTEST_PASSWORD = 8  # characters
SHORTEST_PROXY_SECRET = 16  # characters
LONGEST_USER_NAME = 60  # characters

PASSWORD_VARIABLE = "POISONWATCH_DASHBOARD_PASSWORD"  # noqa: S105  (the name of a variable)
PROXY_SECRET_VARIABLE = "POISONWATCH_DASHBOARD_PROXY_SECRET"  # noqa: S105
# The header in which a reverse proxy proves itself.
PROXY_SECRET_HEADER = "X-Poisonwatch-Proxy-Secret"  # noqa: S105
THIS_MACHINE = ("127.0.0.1", "::1")

_NAME = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9._-]+", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """An identity provider by OpenID Connect, and which of its claims say who people are."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    user_claim: str = "email"
    # the claim that holds poisonwatch-viewer, -reviewer or -admin; None: the users' file says
    role_claim: str | None = None
    # where people open the dashboard; None: as the browser asked for it
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and what they may do."""

    # who decides where nobody logs in: the user who started the dashboard
    user: str
    # one for all; None: there is none
    password: str | None = field(default=None, repr=False)
    # the file of people who may come in; None: nobody has a name of their own
    users: Path | None = None
    provider: ProviderSettings | None = None
    # the header in which a reverse proxy names the user
    proxy_header: str | None = None
    proxy_secret: str | None = field(default=None, repr=False)
    # addresses or networks of reverse proxies: whose headers are believed
    proxies: tuple[str, ...] = ()
    # names under which the dashboard answers, without port
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    read_only: bool = False

    @property
    def is_local(self) -> bool:
        """Whether nobody can come in but by the link that is printed."""
        named = (self.password, self.users, self.provider, self.proxy_header)
        return all(way is None for way in named)


def check_access(access: Access, host: str) -> None:
    """Raises InputError where the dashboard must not listen on `host` with this access; the message
    never holds a secret.
    """
    _check_one_way(access)
    if access.password is not None and len(access.password.strip()) < SHORTEST_PASSWORD:
        # blanks at its ends are not counted: a password of blanks alone is none
        raise InputError(
            f"the dashboard's password is too short; take at least {SHORTEST_PASSWORD} characters"
        )
    if access.proxy_header is not None:
        _check_proxy(access.proxy_header, access.proxy_secret)
    if access.provider is not None:
        _check_provider(access.provider, access.users)
    for proxy in access.proxies:
        try:
            ip_network(proxy)
        except ValueError:
            raise InputError(
                f"the trusted proxy is {excerpt(proxy)!r}; "
                "an address or a network is meant, such as 10.0.0.7 or 10.0.0.0/24"
            ) from None
    for name in access.hosts:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"the name to answer to (--allow-host) is {excerpt(name)!r}; one without scheme, "
                "port or * is meant, such as audits.example.org or [::1]"
            )
    if access.is_local and not _is_loopback(host):
        raise InputError(
            f"on {excerpt(host) or 'all addresses'} the dashboard would be open to whoever reaches "
            "it; let people in by `poisonwatch users add`, or set POISONWATCH_DASHBOARD_PASSWORD, "
            "or name the header of a reverse proxy (--proxy-header), or listen on 127.0.0.1"
        )


def _check_one_way(access: Access) -> None:
    if access.proxy_header is not None and (access.password or access.provider):
        raise InputError(
            "both a password or an identity provider and a proxy header are given; "
            "a reverse proxy that names the user has asked already: leave one out"
        )
    if access.password is not None and (access.users or access.provider):
        raise InputError(
            f"{PASSWORD_VARIABLE} is one password for all, and people have ways of their own to "
            "come in (`poisonwatch users`, or an identity provider): unset it"
        )


def _check_proxy(header: str, secret: str | None) -> None:
    if not _HEADER.fullmatch(header):
        raise InputError(
            f"the proxy header is {excerpt(header)!r}; "
            "a name of letters, digits and - is meant, such as Remote-User"
        )
    if secret is None:
        raise InputError(
            f"anybody on the proxy's machine could send {header}: set {PROXY_SECRET_VARIABLE} "
            f"(or {PROXY_SECRET_VARIABLE}_FILE), as `openssl rand -hex 32` makes one, and have the "
            f"proxy send it as {PROXY_SECRET_HEADER}"
        )
    if len(secret) < SHORTEST_PROXY_SECRET or not secret.isascii() or not secret.isprintable():
        raise InputError(
            f"{PROXY_SECRET_VARIABLE} holds no secret that a header can carry: take at least "
            f"{SHORTEST_PROXY_SECRET} letters and digits, as `openssl rand -hex 32` makes them"
        )


def _check_provider(provider: ProviderSettings, users: Path | None) -> None:
    # what the provider says, keys among it, is as true as the way to it is safe
    for name, address in (("issuer", provider.issuer), ("dashboard", provider.address)):
        if address is None:
            continue
        try:
            parts = urlsplit(address)
            there = parts.hostname or ""
        except ValueError:
            there = ""
        safe = there and (
            parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(there))
        )
        if not safe or parts.username or parts.query or parts.fragment:
            raise InputError(
                f"the {name} of the identity provider's logins must be an https:// address without "
                "user, query and fragment (http:// on this machine alone)"
            )
    if not provider.client_id or not provider.client_secret:
        raise InputError(
            "an identity provider needs POISONWATCH_OIDC_CLIENT_ID and "
            "POISONWATCH_OIDC_CLIENT_SECRET (or POISONWATCH_OIDC_CLIENT_SECRET_FILE)"
        )
    if users is None and provider.role_claim is None:
        raise InputError(
            "nothing says who of the identity provider's people may come in: name them with "
            "`poisonwatch users add AUDIT.yaml NAME --no-password`, or set "
            "POISONWATCH_OIDC_ROLE_CLAIM to the claim that holds poisonwatch-reviewer"
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
