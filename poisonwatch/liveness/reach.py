"""Whether servers can be reached, all at once and within a few seconds, without their libraries.

Whoever answers is there: a server that asks who we are, or does not know the page, answers. One
that says that it is out of order (5xx) does not count as reached.
"""

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from poisonwatch.text.sqlite_files import find_sqlite_file

PATIENCE_S = 5.0  # with one server
DEADLINE_S = 8.0  # for all of them: names that nobody resolves have a patience of their own
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def probe_all(
    addresses: Mapping[str, tuple[str, str]],
    patience_s: float = PATIENCE_S,
    deadline_s: float = DEADLINE_S,
) -> dict[str, str]:
    """What is wrong with each server, empty where it answers: of a URL and, for HTTP, the path
    below it that answers whoever asks.
    """
    found = dict.fromkeys(addresses, "does not answer in time")
    threads = []
    for name, (address, path) in addresses.items():

        def ask(name: str = name, address: str = address, path: str = path) -> None:
            found[name] = probe(address, path, patience_s)

        # A thread that hangs in a name server does not keep the process at its end.
        threads.append(threading.Thread(target=ask, daemon=True))
    for thread in threads:
        thread.start()
    ends = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(ends - time.monotonic(), 0))
    return dict(found)


def probe(address: str, path: str = "", patience_s: float = PATIENCE_S) -> str:
    """What is wrong with the server at an address, in a few words without the address; empty where
    it answers. An address of a file is looked up.
    """
    try:
        parts = urlsplit(address)
        scheme = parts.scheme.partition("+")[0]
        if scheme == "sqlite":
            return _probe_file(find_sqlite_file(address.partition(":///")[2].partition("?")[0]))
        if scheme in ("", "file"):
            return _probe_file(Path(unquote(parts.path)))
        if scheme in ("http", "https"):
            # Neither user nor password go along: who answers is there, and what is told of errors
            # cannot hold them.
            host = parts.netloc.rpartition("@")[2]
            below = parts.path.rstrip("/") + path
            return _probe_http(urlunsplit((scheme, host, below, "", "")), patience_s)
        port = parts.port or DEFAULT_PORTS.get(scheme)
        if parts.hostname is None or port is None:
            return ""
        return _attempt(lambda: _connect(str(parts.hostname), port, patience_s))
    except ValueError:
        return "has no address that can be read"


def _probe_file(place: Path | None) -> str:
    if place is None:
        return ""
    if not place.exists() and not place.parent.is_dir():
        return "is in a folder that does not exist"
    return ""


def _probe_http(address: str, patience_s: float) -> str:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1"):
        # A proxy would look for the server on its own machine.
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)

    def ask() -> str:
        try:
            with opener.open(address, timeout=patience_s):
                return ""
        except urllib.error.HTTPError as error:
            # Also of redirects: whoever answers is there.
            return f"answers {error.code}" if error.code >= 500 else ""

    return _attempt(ask)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever sends elsewhere has answered."""

    def redirect_request(self, *_: object) -> None:
        """Nowhere."""


def _connect(host: str, port: int, patience_s: float) -> str:
    with socket.create_connection((host, port), patience_s):
        return ""


def _attempt(ask: Callable[[], str]) -> str:
    """What came of a question, errors of the network in words."""
    try:
        return ask()
    except (TimeoutError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return "does not answer in time"
        said = getattr(reason, "strerror", None) or type(reason).__name__
        return f"cannot be reached ({said})"
