"""The login: its page, the way out, the cookie between them, and paths that lead nowhere else."""

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from poisonwatch.dashboards.access import Access, clean_user_name
from poisonwatch.dashboards.pages import LONGEST_FIELD, redirect_to, render_page

LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
LOGIN_LASTS = 12 * 3600  # seconds
WRONG_WAITS = 1.0  # seconds
MOST_LOGINS_WAITING = 5  # logins from one address
LONGEST_USER_NAME = 60  # characters that a person types


def build_login_routes(access: Access) -> list[Route]:
    """The login page, and the way out. Without a password both only lead to the first page."""
    pages = _LoginPages(access)
    return [
        Route(LOGIN_PATH, pages.login, methods=["GET", "POST"]),
        Route(LOGOUT_PATH, pages.logout, methods=["POST"]),
    ]


class _LoginPages:
    """Answers the login page and the way out."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._queue = _LoginQueue()

    async def login(self, request: Request) -> Response:
        """The form, or what came of it."""
        if self.access.password is None:
            return redirect_to("/")
        if request.method == "POST":
            return await self._take_form(request, self.access.password)
        after = restrict_to_local(request.query_params.get("next", "/"))
        if request.state.user is not None:
            return redirect_to(after)
        # A link on another site does not bring the cookie (SameSite=strict); the same link on a
        # page of the dashboard does.
        elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
        return _render_login(request, 200, after, elsewhere=elsewhere)

    async def _take_form(self, request: Request, password: str) -> Response:
        # Small limits: nobody has said yet who they are.
        async with request.form(max_files=0, max_fields=8, max_part_size=LONGEST_FIELD) as form:
            name = str(form.get("name", ""))
            given = str(form.get("password", ""))
            after = restrict_to_local(str(form.get("next", "")))
        user = clean_user_name(name, LONGEST_USER_NAME)
        async with self._queue.wait(_get_address(request)) as has_turn:
            if not has_turn:
                wrong = "Too many tries at once: wait a moment."
                return _render_login(request, 429, after, user, wrong=wrong)
            # compared in constant time: how long it takes tells nothing of how much is right
            if not hmac.compare_digest(_encode_password(given), _encode_password(password)):
                # within the turn, so that one address has one try a second
                await asyncio.sleep(WRONG_WAITS)
                wrong = "That is not the password."
                return _render_login(request, 401, after, user, wrong=wrong)
        # after the password: whoever does not have it learns nothing of names
        if user is None:
            wrong = f"Give a name of 1 to {LONGEST_USER_NAME} characters."
            return _render_login(request, 400, after, wrong=wrong)
        self._end_login(request)
        login = secrets.token_urlsafe(16)
        request.session.update(user=user, login=login)
        self.access.logins.add(login)
        return redirect_to(after)

    async def logout(self, request: Request) -> Response:
        """Ends the login of whoever asks."""
        if self.access.password is not None:
            self._end_login(request)
        return redirect_to("/")

    def _end_login(self, request: Request) -> None:
        self.access.logins.discard(request.session.get("login", ""))
        request.session.clear()


def _get_address(request: Request) -> str:
    """Where the request comes from; empty where the server does not say."""
    return request.client.host if request.client else ""


class _LoginQueue:
    """Passwords from one address are looked at one after another: whoever tries many at once gains
    nothing.
    """

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def wait(self, address: str) -> AsyncIterator[bool]:
        """Wait for the turn of an address; False, at once, where too many wait for theirs."""
        if self._waiting[address] >= MOST_LOGINS_WAITING:
            yield False
            return
        self._waiting[address] += 1
        try:
            # asyncio's locks wake those who wait in the order in which they came
            async with self._locks.setdefault(address, asyncio.Lock()):
                yield True
        finally:
            self._waiting[address] -= 1
            # forgotten with the last, or else strangers fill the memory
            if not self._waiting[address]:
                del self._waiting[address], self._locks[address]


class LoginCookie:
    """The login, signed with a secret of this process. Where the browser came by https, the cookie
    is for https only.

    The browser's own Origin says so, also where a proxy in between ends the encryption.
    """

    def __init__(self, app: ASGIApp) -> None:
        # Browsers send a cookie to all ports of a host: each dashboard there has a name for its
        # own.
        name = f"poisonwatch-{secrets.token_hex(4)}"
        secret = secrets.token_urlsafe(32)
        self.plain = SessionMiddleware(app, secret, name, max_age=LOGIN_LASTS, same_site="strict")
        # the same but for one flag, which starlette's class holds for good
        self.secure = SessionMiddleware(
            app, secret, name, max_age=LOGIN_LASTS, same_site="strict", https_only=True
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _came_by_https(scope):
            await self.secure(scope, receive, send)
        else:
            await self.plain(scope, receive, send)


def _came_by_https(scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    origin = Headers(scope=scope).get("origin", "")
    return scope["scheme"] == "https" or origin.lower().startswith("https://")


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


def restrict_to_local(path: str) -> str:
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
    if leads_here:
        return path
    return "/"


def _encode_password(password: str) -> bytes:
    # The environment may hold bytes that are no UTF-8: such a password matches no form, and must
    # not fail here.
    return password.encode("utf-8", "surrogateescape")
