"""The login page, the way out, and paths that lead nowhere else."""

import asyncio
import hmac
import math

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.access import LONGEST_USER_NAME, clean_user_name
from poisonwatch.dashboards.door import UNVERIFIED, ClosedError, Door, Person
from poisonwatch.dashboards.entrance import TOKEN_PARAMETER
from poisonwatch.dashboards.pages import LONGEST_FIELD, redirect_to, render_page
from poisonwatch.dashboards.users import User, encode_password, fold_name, verify_password

LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
HASHES_AT_ONCE = 2  # each takes 64 MiB
CLOSED = "Nobody can log in at this moment: the dashboard's log says why."


def build_login_routes(door: Door) -> list[Route]:
    """The login page, and the way out. Where a reverse proxy asks, both only lead to the first
    page.
    """
    pages = _LoginPages(door)
    return [
        Route(LOGIN_PATH, pages.login, methods=["GET", "POST"]),
        Route(LOGOUT_PATH, pages.logout, methods=["POST"]),
    ]


class TooEarlyError(Exception):
    """A password is not looked at yet: `seconds` are to be waited."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"{seconds} s")
        self.seconds = seconds


class PasswordCheck:
    """Looks at passwords, as `guesses.py` lets it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)

    async def check(self, request: Request, account: str, password: str, user: User | None) -> bool:
        """Whether the password is the user's, or that for all. Raises TooEarlyError."""
        proof = self._door.find_proof(request, account, user)
        guess = self._door.guesses.begin(self._door.get_client(request), account, proof)
        if guess.is_early:
            raise TooEarlyError(math.ceil(guess.wait))
        await asyncio.sleep(guess.wait)
        if not await self._is_right(password, user):
            return False
        self._door.guesses.succeed(guess)
        return True

    async def _is_right(self, password: str, user: User | None) -> bool:
        expected = self._door.access.password
        if expected is not None:
            # compared in constant time: how long it takes tells nothing of how much is right
            return hmac.compare_digest(encode_password(password), encode_password(expected))
        async with self._hashing:
            return await run_in_threadpool(verify_password, user, password)


class _LoginPages:
    """Answers the login page and the way out."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._passwords = PasswordCheck(door)

    async def login(self, request: Request) -> Response:
        """The form, or what came of it."""
        if self._door.access.proxy_header is not None:
            return redirect_to("/")
        if request.method == "POST":
            return await self._take_form(request)
        after = restrict_to_local(request.query_params.get("next", "/"))
        if request.state.user is not None:
            return redirect_to(after)
        # A link on another site does not bring the cookie (SameSite=strict); the same link on a
        # page of the dashboard does.
        elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
        return render_login(request, self._door, 200, after, elsewhere=elsewhere)

    async def _take_form(self, request: Request) -> Response:
        # Small limits: nobody has said yet who they are.
        async with request.form(max_files=0, max_fields=8, max_part_size=LONGEST_FIELD) as form:
            name = str(form.get("name", ""))
            given = str(form.get("password", ""))
            token = str(form.get(TOKEN_PARAMETER, "")).strip()
            after = restrict_to_local(str(form.get("next", "")))
        if self._door.access.is_local:
            return self._take_token(request, token, after)
        return await self._take_password(request, name, given, after=after)

    def _take_token(self, request: Request, token: str, after: str) -> Response:
        if not self._door.entrance.take(token):
            wrong = "That is not the token, or it was used already: the terminal has the latest."
            return render_login(request, self._door, 401, after, wrong=wrong)
        self._door.let_in(request, Person(self._door.access.user, "admin"))
        return redirect_to(after)

    async def _take_password(
        self, request: Request, name: str, password: str, *, after: str
    ) -> Response:
        cleaned = clean_user_name(name, LONGEST_USER_NAME)
        user, account = None, ""
        if self._door.access.password is None:
            account = fold_name(cleaned or "")
            user = self._door.find_user(account)
        try:
            is_right = await self._passwords.check(request, account, password, user)
        except TooEarlyError as early:
            wrong = f"Too many wrong passwords: try again in {early.seconds} s."
            answer = render_login(request, self._door, 429, after, cleaned, wrong=wrong)
            answer.headers["Retry-After"] = str(early.seconds)
            return answer
        if not is_right:
            wrong = "That is not the password."
            if self._door.access.password is None:
                # the same for a name that nobody has: who guesses learns nothing of names
                wrong = "Name or password is wrong."
            return render_login(request, self._door, 401, after, cleaned, wrong=wrong)
        # after the password: whoever does not have it learns nothing of names
        if cleaned is None:
            wrong = f"Give a name of 1 to {LONGEST_USER_NAME} characters."
            return render_login(request, self._door, 400, after, wrong=wrong)
        if user is not None:
            self._door.let_in(request, Person(user.name, user.role), user.id)
        else:
            self._door.let_in(request, Person(cleaned + UNVERIFIED, "admin"))
        answer = redirect_to(after)
        self._door.give_proof(request, answer, account, user)
        return answer

    async def logout(self, request: Request) -> Response:
        """Ends the login of whoever asks."""
        if self._door.access.proxy_header is None:
            self._door.let_out(request)
        return redirect_to("/")


def render_login(
    request: Request,
    door: Door,
    status: int,
    after: str,
    name: str | None = None,
    *,
    wrong: str = "",
    elsewhere: bool = False,
) -> Response:
    """The login page, with the ways in that the dashboard has."""
    access = door.access
    try:
        with_password = any(user.password is not None for user in door.list_users().values())
    except ClosedError:
        with_password, status, wrong = False, 503, CLOSED
    return render_page(
        request,
        "login.html.j2",
        status,
        next=after,
        typed=name or "",
        longest_name=LONGEST_USER_NAME,
        wrong=wrong,
        elsewhere=elsewhere,
        token_name=TOKEN_PARAMETER if access.is_local else None,
        for_all=access.password is not None,
        with_password=with_password or access.password is not None,
        provider=access.provider,
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
