"""The door of a running dashboard: who is let in, who is in, and who has guessed."""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from poisonwatch.dashboards.access import PROXY_SECRET_HEADER, Access, clean_user_name
from poisonwatch.dashboards.addresses import FORWARDED_HEADER, Proxies, name_client
from poisonwatch.dashboards.entrance import Entrance
from poisonwatch.dashboards.guesses import Guesses
from poisonwatch.dashboards.roles import Role
from poisonwatch.dashboards.sessions import Logins, came_by_https
from poisonwatch.dashboards.users import User, fold_name, read_users
from poisonwatch.errors import PoisonwatchError

LONGEST_HEADER = 254  # characters that a proxy names a user with: a mail address fits
PROOF_LASTS = 90 * 24 * 3600  # seconds
# Behind the names of people whom a password for all let in: anybody can type any name.
UNVERIFIED = " (unverified)"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks, and what they may do."""

    name: str
    role: Role


class ClosedError(Exception):
    """Nobody is let in at this moment; the log says why."""


class Door:
    """Lets people into one dashboard."""

    def __init__(self, access: Access, announce: Callable[[str], None] = lambda _: None) -> None:
        self.access = access
        self.logins = Logins()
        self.guesses = Guesses()
        self.entrance = Entrance(announce)
        self.proxies = Proxies(access.proxies)
        self._secret = secrets.token_bytes(32)

    def find_person(self, request: Request) -> Person | None:
        """Who has logged in with the request's cookie, as they are known now; None where nobody
        has. Raises ClosedError.
        """
        login = self.logins.find(request.session.get("login"))
        if login is None:
            return None
        if login.user_id is None:
            return Person(login.name, login.role)
        user = self.find_user(login.name)
        # removed since, or with another password
        if user is None or user.id != login.user_id:
            return None
        return Person(user.name, user.role)

    def find_proxied_person(self, request: Request, header: str) -> Person | str:
        """Whom a reverse proxy names in its header, or why it is not believed. Raises
        ClosedError.
        """
        if not self.comes_from_proxy(request):
            return (
                "This connection does not come from a reverse proxy that the dashboard knows. "
                "Open it through the proxy."
            )
        if not self._proves_to_be_proxy(request):
            return f"The reverse proxy must prove itself by one header {PROXY_SECRET_HEADER}."
        named = request.headers.getlist(header)
        name = None
        # Two headers of that name: one of them may be the client's, passed on by the proxy.
        if len(named) == 1:
            name = clean_user_name(decode_header(named[0]), LONGEST_HEADER)
        if name is None:
            return f"The reverse proxy must name you in one header {header}, and did not."
        # without a file of users, the proxy alone says who may come in
        if self.access.users is None:
            return Person(name, "admin")
        user = self.find_user(name)
        if user is None:
            return "The dashboard does not know you: ask whoever runs it to add you as a user."
        return Person(user.name, user.role)

    def comes_from_proxy(self, request: Request) -> bool:
        """Whether a reverse proxy that is trusted sent the request."""
        return (request.client.host if request.client else None) in self.proxies

    def _proves_to_be_proxy(self, request: Request) -> bool:
        given = request.headers.getlist(PROXY_SECRET_HEADER)
        expected = self.access.proxy_secret or ""
        # compared in constant time: how long it takes tells nothing of how much is right
        return (
            len(given) == 1
            and bool(expected)
            and hmac.compare_digest(given[0].encode(), expected.encode())
        )

    def find_user(self, name: str) -> User | None:
        """The user of this name, as the file of users has them now. Raises ClosedError."""
        return self.list_users().get(fold_name(name))

    def list_users(self) -> dict[str, User]:
        """All users, as their file has them now. Raises ClosedError."""
        if self.access.users is None:
            return {}
        try:
            return read_users(self.access.users)
        except PoisonwatchError as error:
            # told to the log alone: whoever asks has not said yet who they are
            log.error("nobody can log in: %s", error)
            raise ClosedError from error

    def let_in(self, request: Request, person: Person, user_id: str | None = None) -> None:
        """Begin a login in the browser that asks; the one before ends."""
        self.let_out(request)
        request.session["login"] = self.logins.begin(person.name, person.role, user_id)

    def let_out(self, request: Request) -> None:
        """End the login of the browser that asks."""
        self.logins.end(request.session.get("login"))
        request.session.clear()

    def get_client(self, request: Request) -> str:
        """Where the request comes from, as guesses are counted."""
        peer = request.client.host if request.client else None
        return name_client(
            self.proxies.find_client(peer, request.headers.getlist(FORWARDED_HEADER))
        )

    # A browser in which somebody has logged in keeps a proof of that, and its tries then count by
    # themselves (guesses.py). A proof is a random number and its code by a key that nobody else
    # has: the user's hash, so that it ends with the password, or a secret of this process.

    def find_proof(self, request: Request, account: str, user: User | None) -> str | None:
        """The number of the proof that the browser brings for an account; None where it brings
        none that is true.
        """
        given = request.cookies.get(self._name_proof(account), "")
        number, _, code = given.partition(".")
        expected = self._sign_proof(number, user)
        if expected is None or not hmac.compare_digest(code.encode(), expected.encode()):
            return None
        return number

    def give_proof(
        self, request: Request, response: Response, account: str, user: User | None
    ) -> None:
        """Leave a proof in the browser."""
        number = secrets.token_urlsafe(12)
        response.set_cookie(
            self._name_proof(account),
            f"{number}.{self._sign_proof(number, user)}",
            max_age=PROOF_LASTS,
            path="/login",
            secure=came_by_https(request.scope),
            httponly=True,
            samesite="strict",
        )

    def _name_proof(self, account: str) -> str:
        """The name of the cookie: people may share a browser, and dashboards a host."""
        # with one password for all, proofs last as long as the process
        place = str(self.access.users or self._secret.hex())
        digest = hashlib.sha256(f"{place} {account}".encode("utf-8", "surrogateescape"))
        return f"poisonwatch-known-{digest.hexdigest()[:16]}"

    def _sign_proof(self, number: str, user: User | None) -> str | None:
        key = self._secret
        if self.access.users is not None:
            if user is None or user.password is None:
                return None
            key = user.password.encode()
        return hmac.new(key, f"browser {number}".encode(), "sha256").hexdigest()


def decode_header(header: str) -> str:
    """A header's text: Starlette reads headers as Latin-1; proxies write UTF-8."""
    return header.encode("latin-1").decode("utf-8", "backslashreplace")
