"""How whoever started the dashboard comes in where nobody logs in: by a link that holds a token.

Other users of the same machine reach the dashboard, too; what they do not see is the terminal that
it was started in. The token works once: then a new one is printed, for another browser, or for this
one when its cookie is gone.
"""

import hmac
import secrets
from collections.abc import Callable
from threading import Lock

TOKEN_PARAMETER = "token"  # noqa: S105  (a name)


class Entrance:
    """The token that lets the next browser in. `announce` is given each new one."""

    def __init__(self, announce: Callable[[str], None] = lambda _: None) -> None:
        self._announce = announce
        self._lock = Lock()
        self.token = secrets.token_urlsafe(24)

    def take(self, given: str) -> bool:
        """Whether this is the token; another one is then announced in its place."""
        with self._lock:
            expected = self.token
            # compared in constant time: how long it takes tells nothing of how much is right
            if not hmac.compare_digest(given.encode(), expected.encode()):
                return False
            self.token = secrets.token_urlsafe(24)
        self._announce(self.token)
        return True
