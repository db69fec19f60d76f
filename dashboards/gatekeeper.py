"""What stands before every page: only the dashboard's own names, forms and people are let in.

Everything here runs before any page does, and nothing that it answers holds a row, a path or a name
of an audit.
"""

import re
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from poisonwatch.dashboards.door import ClosedError, Door, Person
from poisonwatch.dashboards.entrance import TOKEN_PARAMETER
from poisonwatch.dashboards.login import CLOSED, LOGIN_PATH, LOGOUT_PATH, restrict_to_local
from poisonwatch.dashboards.openid import BACK_PATH, START_PATH
from poisonwatch.dashboards.pages import redirect_to
from poisonwatch.dashboards.roles import DUTIES, find_needed_role, may_act_as
from poisonwatch.dashboards.sessions import LoginCookie

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
# Pages for those who have not come in yet.
OPEN_PATHS = {LOGIN_PATH, START_PATH, BACK_PATH}

_HOST = re.compile(r"(\[[^]]*\]|[^][:]*)(?::[0-9]*)?")


def build_middleware(door: Door) -> list[Middleware]:
    """What stands before the pages; `request.state` then has `user` and `role` (None at the login),
    `read_only` and `may_leave`.
    """
    # In this order: headers are put on every answer, refusals among them, and the gatekeeper reads
    # the login from the cookie.
    stack = [Middleware(_ResponseHeaders)]
    if door.access.proxy_header is None:
        # a provider sends people back by GET, without an Origin that would say https
        provider = door.access.provider
        address = (provider.address if provider else None) or ""
        stack.append(Middleware(LoginCookie, address.startswith("https://")))
    stack.append(Middleware(_Gatekeeper, door))
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
        except ClientDisconnect:
            # nobody is there to be answered, and strangers must not fill the log
            return
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

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door
        self.hosts = {name.lower() for name in door.access.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            request = Request(scope)
            try:
                # What anybody may ask for comes first: who they are is not even looked at in a
                # request that another site sent.
                refusal = (
                    self._refuse_foreign(request)
                    or self._identify(request)
                    or _refuse_by_role(request)
                )
            except ClosedError:
                refusal = _send_line(503, CLOSED)
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
        if self.door.access.read_only and request.scope["path"] not in READ_ONLY_FORMS:
            return _send_line(
                403,
                "The dashboard was started with --read-only: "
                "nothing can be decided or written here.",
            )
        return None

    def _identify(self, request: Request) -> Response | None:
        """Note in `request.state` who asks; an answer where that is nobody who may come in.
        Raises ClosedError.
        """
        request.state.read_only = self.door.access.read_only
        request.state.may_leave = False
        header = self.door.access.proxy_header
        if header is None:
            return self._identify_by_login(request)
        found = self.door.find_proxied_person(request, header)
        if isinstance(found, str):
            return _send_line(403, found)
        _note_person(request, found)
        return None

    def _identify_by_login(self, request: Request) -> Response | None:
        person = None
        # styles and scripts are everybody's
        if not request.scope["path"].startswith(STATIC_PATH):
            person = self.door.find_person(request)
        _note_person(request, person)
        request.state.may_leave = person is not None
        token = request.query_params.get(TOKEN_PARAMETER)
        if self.door.access.is_local and token is not None and request.method == "GET":
            return self._take_token(request, token)
        path = request.scope["path"]
        if person is not None or path in OPEN_PATHS or path.startswith(STATIC_PATH):
            return None
        # a form cannot be sent once more after the login: its sender is told, and not led there
        if _changes_something(request):
            return _send_line(401, "Log in first.")
        return redirect_to(LOGIN_PATH, next=_find_way_back(request))

    def _take_token(self, request: Request, token: str) -> Response:
        """Let in by the link that was printed, and lead to the page without the token."""
        after = _find_way_back(request)
        # who is in already leaves the token for another browser
        if request.state.user is None:
            if not self.door.entrance.take(token):
                return redirect_to(LOGIN_PATH, next=after)
            self.door.let_in(request, Person(self.door.access.user, "admin"))
        return redirect_to(after)

    def _is_own_host(self, headers: Headers) -> bool:
        """Whether the browser asked for a name of this dashboard: a web page elsewhere can point a
        name of its own to this address.
        """
        # Starlette's TrustedHostMiddleware asks the same and less: it cuts an IPv6 address at its
        # first colon, looks at the first of two Host headers, and takes any port for one.
        names = headers.getlist("host")
        match = _HOST.fullmatch(names[0]) if len(names) == 1 else None
        return match is not None and match[1].lower() in self.hosts


def _note_person(request: Request, person: Person | None) -> None:
    request.state.user = person.name if person else None
    request.state.role = person.role if person else None


def _refuse_by_role(request: Request) -> Response | None:
    """The answer to somebody whose role may not do what they ask for; None where it may."""
    role = request.state.role
    if role is None:
        return None
    needed = find_needed_role(request.scope["path"], _changes_something(request))
    if may_act_as(role, needed):
        return None
    return _send_line(
        403,
        f"Not for a {role}: the role {needed} {DUTIES[needed]}. Ask whoever runs the dashboard.",
    )


def _find_way_back(request: Request) -> str:
    """Where the request leads, for the time after the login; without a token."""
    after = quote(request.scope["path"])
    query = request.scope["query_string"].decode("latin-1")
    if TOKEN_PARAMETER in request.query_params:
        kept = request.query_params.multi_items()
        query = urlencode([(name, value) for name, value in kept if name != TOKEN_PARAMETER])
    if query:
        after += f"?{query}"
    return restrict_to_local(after)


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


def _send_line(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
