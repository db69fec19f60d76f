"""Logins: who is behind a browser's cookie. They are kept here and not in the cookie, so that one
ends when it is told to, wherever its cookie was copied to.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from starlette.datastructures import Headers
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from poisonwatch.dashboards.roles import Role

LOGIN_LASTS = 12 * 3600  # seconds
MOST_LOGINS = 1000  # at a time, the latest


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Somebody who came in: under which name, and what gave them their role. `user_id` is that of
    the users' file, None where it does not say who they are.
    """

    name: str
    role: Role
    ends: float
    user_id: str | None = None


class Logins:
    """The logins that have not ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logins: OrderedDict[str, Login] = OrderedDict()
        # pages ask from several threads
        self._lock = Lock()

    def begin(self, name: str, role: Role, user_id: str | None = None) -> str:
        """A new login: what its cookie holds."""
        key = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            for old in [old for old, login in self._logins.items() if login.ends <= now]:
                del self._logins[old]
            self._logins[key] = Login(name=name, role=role, ends=now + LOGIN_LASTS, user_id=user_id)
            while len(self._logins) > MOST_LOGINS:
                self._logins.popitem(last=False)
        return key

    def find(self, key: str | None) -> Login | None:
        """The login of a cookie; None where it has ended, or never was."""
        with self._lock:
            login = self._logins.get(key or "")
        if login is None or login.ends <= self._clock():
            return None
        return login

    def end(self, key: str | None) -> None:
        """End a login."""
        with self._lock:
            self._logins.pop(key or "", None)

    def count_by_name(self) -> dict[str, int]:
        """How many logins have not ended, by name."""
        now = self._clock()
        counts: dict[str, int] = {}
        with self._lock:
            for login in self._logins.values():
                if login.ends > now:
                    counts[login.name] = counts.get(login.name, 0) + 1
        return counts


class LoginCookie:
    """The login, signed with a secret of this process. Where the browser came by https, or is known
    to (`is_secure`), the cookie is for https only.

    The browser's own Origin says so, also where a proxy in between ends the encryption.
    """

    def __init__(self, app: ASGIApp, is_secure: bool = False) -> None:
        self._is_secure = is_secure
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
        if self._is_secure or came_by_https(scope):
            await self.secure(scope, receive, send)
        else:
            await self.plain(scope, receive, send)


def came_by_https(scope: Scope) -> bool:
    """Whether the browser came by https, as it says itself."""
    if scope["type"] != "http":
        return False
    origin = Headers(scope=scope).get("origin", "")
    return scope["scheme"] == "https" or origin.lower().startswith("https://")
