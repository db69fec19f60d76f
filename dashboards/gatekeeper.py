"""What stands before every page: only the dashboard's own names, forms and people are let in.

Everything here runs before any page does, and nothing that it answers holds a row, a path or a name
of an audit.
"""

import re
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from poisonwatch.dashboards.access import Access, clean_user_name
from poisonwatch.dashboards.login import LOGIN_PATH, LOGOUT_PATH, LoginCookie, restrict_to_local
from poisonwatch.dashboards.pages import redirect_to

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
STATIC_PATH = "/static/"
# Forms that change nothing: taken in read-only mode, too.
READ_ONLY_FORMS = {LOGIN_PATH, LOGOUT_PATH, "/explain"}
LONGEST_HEADER = 254  # characters that a proxy names a user with: a mail address fits

_HOST = re.compile(r"(\[[^]]*\]|[^][:]*)(?::[0-9]*)?")


def build_middleware(access: Access) -> list[Middleware]:
    """What stands before the pages; `request.state` then has `user` (None at the login),
    `read_only` and `may_leave`.
    """
    # In this order: headers are put on every answer, refusals among them, and the gatekeeper reads
    # the login from the cookie.
    stack = [Middleware(_ResponseHeaders)]
    if access.password is not None:
        stack.append(Middleware(LoginCookie))
    stack.append(Middleware(_Gatekeeper, access))
    return stack


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


class _Gatekeeper:
    """Lets a request in to the pages, or answers why not."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access
        self.hosts = {name.lower() for name in access.hosts}
        self.proxies = [ip_network(proxy) for proxy in access.proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            request = Request(scope)
            # What anybody may ask for comes first: who they are is not even looked at in a request
            # that another site sent.
            refusal = self._refuse_foreign(request) or self._identify(request)
        await (refusal or self.app)(scope, receive, send)

    def _refuse_foreign(self, request: Request) -> Response | None:
        """The answer to what nobody may ask for; None where there is nothing against it."""
        headers = request.headers
        if not self._is_own_host(headers):
            return _send_line(
                421,
                "The dashboard does not answer under this name. "
                "If the name is its own, start it with --allow-host NAME.",
            )
        if not _changes_something(request):
            return None
        why = _explain_foreign(headers)
        if why:
            return _send_line(403, f"Not taken: {why}. Use the forms of the dashboard's own pages.")
        if self.access.read_only and request.scope["path"] not in READ_ONLY_FORMS:
            return _send_line(
                403,
                "The dashboard was started with --read-only: "
                "nothing can be decided or written here.",
            )
        return None

    def _identify(self, request: Request) -> Response | None:
        """Note in `request.state` who asks; an answer where that is nobody who may come in."""
        request.state.read_only = self.access.read_only
        request.state.may_leave = False
        if self.access.password is not None:
            return self._identify_by_login(request)
        if self.access.proxy_header is not None:
            return self._identify_by_proxy(request, self.access.proxy_header)
        request.state.user = self.access.user
        return None

    def _identify_by_proxy(self, request: Request, header: str) -> Response | None:
        if not self._comes_from_proxy(request):
            return _send_line(
                403,
                "This connection does not come from a reverse proxy that the dashboard knows. "
                "Open it through the proxy.",
            )
        named = request.headers.getlist(header)
        user = None
        # Two headers of that name: one of them may be the client's, passed on by the proxy.
        if len(named) == 1:
            user = clean_user_name(_decode_header(named[0]), LONGEST_HEADER)
        if user is None:
            return _send_line(
                403, f"The reverse proxy must name you in one header {header}, and did not."
            )
        request.state.user = user
        return None

    def _identify_by_login(self, request: Request) -> Response | None:
        # The cookie is signed, and may still be of a login that was ended since.
        is_logged_in = request.session.get("login") in self.access.logins
        request.state.user = request.session.get("user") if is_logged_in else None
        request.state.may_leave = request.state.user is not None
        path = request.scope["path"]
        if request.state.may_leave or path == LOGIN_PATH or path.startswith(STATIC_PATH):
            return None
        # a form cannot be sent once more after the login: its sender is told, and not led there
        if _changes_something(request):
            return _send_line(401, "Log in first.")
        after = quote(path)
        query = request.scope["query_string"].decode("latin-1")
        if query:
            after += f"?{query}"
        return redirect_to(LOGIN_PATH, next=restrict_to_local(after))

    def _is_own_host(self, headers: Headers) -> bool:
        """Whether the browser asked for a name of this dashboard: a web page elsewhere can point a
        name of its own to this address.
        """
        # Starlette's TrustedHostMiddleware asks the same and less: it cuts an IPv6 address at its
        # first colon, looks at the first of two Host headers, and takes any port for one.
        names = headers.getlist("host")
        match = _HOST.fullmatch(names[0]) if len(names) == 1 else None
        return match is not None and match[1].lower() in self.hosts

    def _comes_from_proxy(self, request: Request) -> bool:
        try:
            peer = ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        # an IPv4 client of a server that listens on ::
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self.proxies)


def _changes_something(request: Request) -> bool:
    return request.method not in ("GET", "HEAD")


def _explain_foreign(headers: Headers) -> str | None:
    """Why a form is not one of the dashboard's own pages; None where it is. Any web page can send
    forms to any address.
    """
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    # The browser's own word, which no page can change, comes before Origin, which browsers make
    # "null" where settings for privacy ask for it.
    if sites:
        if sites == ["same-origin"]:
            return None
        return "the browser says that it comes from another site"
    if not origins:
        return "it does not say which page it comes from (neither Sec-Fetch-Site nor Origin)"
    # either scheme, since a proxy in between may end the encryption
    own = {f"{scheme}://{headers['host']}".lower() for scheme in ("http", "https")}
    if len(origins) == 1 and origins[0].lower() in own:
        return None
    return "its Origin is not the Host that it was sent to"


def _decode_header(header: str) -> str:
    # Starlette reads headers as Latin-1; proxies write UTF-8.
    return header.encode("latin-1").decode("utf-8", "backslashreplace")


def _send_line(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
