"""Who may come into the dashboard: the names that it answers to, whose forms it takes, and who is
there.

Everything here runs before any page does, and nothing that it answers holds a row, a path or a name
of an audit.
"""

import asyncio
import hmac
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from poisonwatch.dashboards.pages import LONGEST_FIELD, redirect_to, render_page
from poisonwatch.errors import InputError
from poisonwatch.text.display import excerpt, make_visible

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # with no-referrer, browsers send "Origin: null" with the dashboard's own forms
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOGIN_PATH, STATIC_PATH = "/login", "/static/"
READ_ONLY_FORMS = {
    LOGIN_PATH,
    "/logout",
    "/explain",
}  # forms that change nothing: taken in read-only mode, too
LOGIN_LASTS = 12 * 3600  # seconds
WRONG_WAITS = 1.0  # seconds
MOST_LOGINS_WAITING = 5  # logins from one address
SHORTEST_PASSWORD = 8  # characters
LONGEST_USER_NAME = 60  # characters that a person types
LONGEST_HEADER = 254  # characters that a proxy names a user with: a mail address fits

_HOST = re.compile(r"(\[[^]]*\]|[^][:]*)(?::[0-9]*)?")
_NAME = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9._-]+", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and what they may do."""

    user: str  # who decides where nobody logs in: the user who started the dashboard
    password: str | None = field(default=None, repr=False)  # None: nobody is asked
    proxy_header: str | None = None  # the header in which a reverse proxy names the user
    proxies: tuple[str, ...] = (
        "127.0.0.1",
        "::1",
    )  # addresses or networks whose header is believed
    hosts: tuple[str, ...] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )  # names under which the dashboard answers, without port
    read_only: bool = False
    inside: set[str] = field(
        default_factory=set, repr=False, compare=False
    )  # logins that were not logged out


def check_access(access: Access, host: str) -> None:
    """Raises InputError where the dashboard must not listen on `host` with this access; the message
    never holds the password.
    """
    if access.password is not None and access.proxy_header is not None:
        raise InputError(
            "both a password and a proxy header are given; a reverse proxy that names the user has asked already: leave one out"
        )
    if access.password is not None and len(access.password.strip()) < SHORTEST_PASSWORD:
        raise InputError(
            f"the dashboard's password is too short; take at least {SHORTEST_PASSWORD} characters"
        )
    if access.proxy_header is not None and not _HEADER.fullmatch(access.proxy_header):
        raise InputError(
            f"the proxy header is {excerpt(access.proxy_header)!r}; a name of letters, digits and - is meant, such as Remote-User"
        )
    for proxy in access.proxies:
        try:
            ip_network(proxy)
        except ValueError:
            raise InputError(
                f"the proxy is {excerpt(proxy)!r}; an address or a network is meant, such as 10.0.0.7 or 10.0.0.0/24"
            ) from None
    for name in access.hosts:
        if not _NAME.fullmatch(name):
            allowed = "one without scheme, port or * is meant, such as audits.example.org or [::1]"
            raise InputError(
                f"the name to answer to (--allow-host) is {excerpt(name)!r}; {allowed}"
            )
    if access.password is None and access.proxy_header is None and not _is_loopback(host):
        raise InputError(
            f"on {excerpt(host) or 'all addresses'} the dashboard would show rows to whoever reaches it; "
            "set POISONWATCH_DASHBOARD_PASSWORD, or name the header of a reverse proxy (--proxy-header), or listen on 127.0.0.1"
        )


def build_middleware(access: Access) -> list[Middleware]:
    """What stands before the pages; `request.state` then has `user` (None at the login),
    `read_only` and `may_leave`.
    """
    cookie = [Middleware(_LoginCookie)] if access.password is not None else []
    return [Middleware(_ResponseHeaders), *cookie, Middleware(_Gatekeeper, access)]


def build_access_routes(access: Access) -> list[Route]:
    """The login page, and the way out. Without a password both only lead to the first page."""

    turns = _LoginQueue()

    async def login(request: Request) -> Response:
        if access.password is None:
            return redirect_to("/")
        if request.method != "POST":
            after = _restrict_to_local(request.query_params.get("next", "/"))
            # A link on another site does not bring the cookie (SameSite=strict); the same link on a
            # page of the dashboard does.
            elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
            return (
                redirect_to(after)
                if request.state.user is not None
                else _render_login(request, 200, after, elsewhere=elsewhere)
            )
        async with request.form(max_files=0, max_fields=8, max_part_size=LONGEST_FIELD) as form:
            name, password, after = (str(form.get(key, "")) for key in ("name", "password", "next"))
        after, user = _restrict_to_local(after), _clean_user_name(name, LONGEST_USER_NAME)
        async with turns.of(request.client.host if request.client else "") as turn:
            if not turn:
                return _render_login(
                    request, 429, after, user, wrong="Too many tries at once: wait a moment."
                )
            if not hmac.compare_digest(
                _encode_password(password), _encode_password(access.password)
            ):
                await asyncio.sleep(WRONG_WAITS)
                return _render_login(request, 401, after, user, wrong="That is not the password.")
        if user is None:
            return _render_login(
                request, 400, after, wrong=f"Give a name of 1 to {LONGEST_USER_NAME} characters."
            )
        access.inside.discard(request.session.get("login", ""))
        request.session.clear()
        request.session.update(user=user, login=secrets.token_urlsafe(16))
        access.inside.add(request.session["login"])
        return redirect_to(after)

    async def logout(request: Request) -> Response:
        if access.password is not None:
            access.inside.discard(request.session.get("login", ""))
            request.session.clear()
        return redirect_to("/")

    return [
        Route(LOGIN_PATH, login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
    ]


class _LoginQueue:
    """Passwords from one address are looked at one after another: whoever tries many at once gains
    nothing.
    """

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, address: str) -> AsyncIterator[bool]:
        """Wait for the turn of an address; False, at once, where too many wait for theirs."""
        if self._waiting[address] >= MOST_LOGINS_WAITING:
            yield False
            return
        self._waiting[address] += 1
        try:
            async with self._locks.setdefault(address, asyncio.Lock()):
                yield True
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address], self._locks[address]


class _ResponseHeaders:
    """Only HTTP is spoken, and every answer tells the browser to load, run and frame nothing that
    is not the dashboard's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", POLICY)
                headers.update(SECURITY_HEADERS)
                if not scope["path"].startswith(STATIC_PATH):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception:
            # Answered here: Starlette's own answer to an error is outside of all middleware, and
            # would go without the headers.
            if not begun:
                await _send_line(500, "The dashboard failed here; its log says why.")(
                    scope, receive, answer
                )
            raise


class _LoginCookie:
    """The login, signed with a secret of this process. Where the browser came by https, the cookie
    is for https only.

    The browser's own Origin says so, also where a proxy in between ends the encryption.
    """

    def __init__(self, app: ASGIApp) -> None:
        # Browsers send a cookie to all ports of a host: each dashboard there has a name for its
        # own.
        secret, name = secrets.token_urlsafe(32), f"poisonwatch-{secrets.token_hex(4)}"
        self.plain = SessionMiddleware(app, secret, name, LOGIN_LASTS, same_site="strict")
        self.secure = SessionMiddleware(
            app, secret, name, LOGIN_LASTS, same_site="strict", https_only=True
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encrypted = scope["type"] == "http" and (
            scope["scheme"] == "https"
            or Headers(scope=scope).get("origin", "").lower().startswith("https://")
        )
        await (self.secure if encrypted else self.plain)(scope, receive, send)


class _Gatekeeper:
    """Lets a request in to the pages, or answers why not."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access
        self.hosts = {name.lower() for name in access.hosts}
        self.proxies = [ip_network(proxy) for proxy in access.proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inside = self.app if scope["type"] != "http" else self._refuse(Request(scope)) or self.app
        await inside(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        headers, path = request.headers, request.scope["path"]
        changes = request.method not in ("GET", "HEAD")
        if not self._is_own_host(headers):
            return _send_line(
                421,
                "The dashboard does not answer under this name. If the name is its own, start it with --allow-host NAME.",
            )
        if changes and (why := _explain_foreign(headers)):
            return _send_line(403, f"Not taken: {why}. Use the forms of the dashboard's own pages.")
        if changes and self.access.read_only and path not in READ_ONLY_FORMS:
            return _send_line(
                403,
                "The dashboard was started with --read-only: nothing can be decided or written here.",
            )
        user = self.access.user
        if self.access.proxy_header is not None:
            if not self._comes_from_proxy(request):
                return _send_line(
                    403,
                    "This connection does not come from a reverse proxy that the dashboard knows. Open it through the proxy.",
                )
            named = headers.getlist(self.access.proxy_header)
            # Two headers of that name: one of them may be the client's, passed on by the proxy.
            if (
                len(named) != 1
                or (vouched := _clean_user_name(_decode_header(named[0]), LONGEST_HEADER)) is None
            ):
                return _send_line(
                    403,
                    f"The reverse proxy must name you in one header {self.access.proxy_header}, and did not.",
                )
            user = vouched
        request.state.read_only = self.access.read_only
        request.state.user, request.state.may_leave = user, False
        if self.access.password is None:
            return None
        request.state.user = (
            request.session.get("user")
            if request.session.get("login") in self.access.inside
            else None
        )
        request.state.may_leave = request.state.user is not None
        if request.state.may_leave or path == LOGIN_PATH or path.startswith(STATIC_PATH):
            return None
        if changes:
            return _send_line(401, "Log in first.")
        query = request.scope["query_string"].decode("latin-1")
        return redirect_to(
            LOGIN_PATH, next=_restrict_to_local(quote(path) + (f"?{query}" if query else ""))
        )

    def _is_own_host(self, headers: Headers) -> bool:
        """Whether the browser asked for a name of this dashboard: a web page elsewhere can point a
        name of its own to this address.
        """
        names = headers.getlist("host")
        match = _HOST.fullmatch(names[0]) if len(names) == 1 else None
        return match is not None and match[1].lower() in self.hosts

    def _comes_from_proxy(self, request: Request) -> bool:
        try:
            peer = ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self.proxies)


def _explain_foreign(headers: Headers) -> str | None:
    """Why a form is not one of the dashboard's own pages; None where it is. Any web page can send
    forms to any address.
    """
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    if sites:
        return (
            None if sites == ["same-origin"] else "the browser says that it comes from another site"
        )
    if not origins:
        return "it does not say which page it comes from (neither Sec-Fetch-Site nor Origin)"
    own = {f"{scheme}://{headers['host']}".lower() for scheme in ("http", "https")}
    return (
        None
        if len(origins) == 1 and origins[0].lower() in own
        else "its Origin is not the Host that it was sent to"
    )


def _render_login(
    request: Request,
    status: int,
    after: str,
    name: str | None = None,
    *,
    wrong: str = "",
    elsewhere: bool = False,
) -> Response:
    return render_page(
        request,
        "login.html.j2",
        status,
        next=after,
        typed=name or "",
        longest_name=LONGEST_USER_NAME,
        wrong=wrong,
        elsewhere=elsewhere,
    )


def _restrict_to_local(path: str) -> str:
    """The path where it leads to a page of the dashboard, else the first page.

    Browsers read // and /\\ as the start of another host's name, and leave out control characters
    before they do.
    """
    leads_here = (
        path.startswith("/")
        and not path.startswith("//")
        and "\\" not in path
        and all(" " < c != "\x7f" for c in path)
    )
    return path if leads_here else "/"


def _clean_user_name(text: str, longest: int) -> str | None:
    """A user's name as one visible line; None where it is empty or longer than `longest`
    characters.
    """
    name = " ".join(make_visible(text).split())
    return name if 0 < len(name) <= longest else None


def _is_loopback(host: str) -> bool:
    try:
        return (
            host.lower() == "localhost"
            or ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
        )
    except ValueError:
        return False


def _decode_header(header: str) -> str:
    # Starlette reads headers as Latin-1; proxies write UTF-8.
    return header.encode("latin-1").decode("utf-8", "backslashreplace")


def _encode_password(password: str) -> bytes:
    # The environment may hold bytes that are no UTF-8: such a password matches no form, and must
    # not fail here.
    return password.encode("utf-8", "surrogateescape")


def _send_line(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
