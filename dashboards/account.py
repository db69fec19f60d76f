"""Who somebody is here, what they may do, and their password; for admins, who else may come in."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.door import Door, Person
from poisonwatch.dashboards.login import PasswordCheck, TooEarlyError
from poisonwatch.dashboards.pages import read_form, redirect_to, render_page
from poisonwatch.dashboards.roles import DUTIES, ROLES
from poisonwatch.dashboards.users import (
    User,
    change_users,
    fold_name,
    with_password,
)
from poisonwatch.errors import InputError

ACCOUNT_PATH = "/account"
PASSWORD_PATH = "/account/password"  # noqa: S105  (a path)


def build_account_routes(door: Door) -> list[Route]:
    """The page of whoever is logged in, and the form for their password."""
    pages = _AccountPages(door)
    return [
        Route(ACCOUNT_PATH, pages.show),
        Route(PASSWORD_PATH, pages.take_password, methods=["POST"]),
    ]


class _AccountPages:
    """Answers the page of an account."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._passwords = PasswordCheck(door)

    def show(self, request: Request) -> Response:
        """Name, role, password; the users and their logins for admins."""
        user = self._find_own(request)
        users: list[User] = []
        if request.state.role == "admin":
            users = list(self._door.list_users().values())
        return render_page(
            request,
            "account.html.j2",
            role=request.state.role,
            roles=ROLES,
            duties=DUTIES,
            own=user,
            users=users,
            logins=self._door.logins.count_by_name(),
            access=self._door.access,
            changed="changed" in request.query_params,
        )

    async def take_password(self, request: Request) -> Response:
        """Another password, from whoever knows the one before. Raises InputError."""
        form = await read_form(request)
        old, new, again = (str(form.get(key, "")) for key in ("old", "new", "again"))
        user, path = self._find_own(request), self._door.access.users
        if user is None or user.password is None or path is None:
            raise InputError("you have no password here: there is none to change")
        if new != again:
            raise InputError("the two new passwords differ: nothing was changed")
        try:
            is_right = await self._passwords.check(request, fold_name(user.name), old, user)
        except TooEarlyError as early:
            raise InputError(f"too many wrong passwords: try again in {early.seconds} s") from None
        if not is_right:
            raise InputError("that is not your password: nothing was changed")
        changed = await run_in_threadpool(with_password, user, new)
        with change_users(path) as users:
            key = fold_name(user.name)
            # removed, or changed elsewhere, since it was looked up
            if users.get(key) != user:
                raise InputError("your account was changed meanwhile: nothing was changed")
            users[key] = changed
        # every login with the old password has ended with that, this one too
        self._door.let_in(request, Person(changed.name, changed.role), changed.id)
        return redirect_to(ACCOUNT_PATH, changed=1)

    def _find_own(self, request: Request) -> User | None:
        """Whoever asks, as the file of users has them; None where it does not."""
        return self._door.find_user(request.state.user)
