"""Connections that are held open without asking anything: each has little time to say what it
wants, and where there are too many, those go first that have said the least for the longest.

Nobody who asks at once is turned away for it: a request that is whole is never closed here.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from poisonwatch.dashboards.addresses import Proxies, name_client

HEADERS_S = 10.0  # seconds for the headers of a request, from the first byte on or the connection
BODY_S = 30.0  # seconds for a form: 2 MiB come in that time by the slowest of lines
STALL_S = 60.0  # seconds without a byte of an answer that is taken
FIRST_WORD_S = 1.0  # seconds that a connection has in any case
MOST_CONNECTIONS = 512
MOST_OF_ADDRESS = 128  # connections of one address that is no trusted proxy
# By what the other side is to send.
PATIENCE: dict[object, float] = {h11.IDLE: HEADERS_S, h11.SEND_BODY: BODY_S}


class Waiting:
    """The connections of a server that wait for the other side, oldest first, and how many there
    are of each address.
    """

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._most = min(MOST_CONNECTIONS, count_usable_files() // 2)
        # by address and time, in the order in which they began to wait
        self._unfinished: dict[PatientProtocol, tuple[str, float]] = {}
        self._open: Counter[str] = Counter()

    def enter(self, connection: "PatientProtocol", address: str) -> None:
        """A connection is there: others go, where there are too many."""
        self._open[address] += 1
        self.begin(connection, address)
        if not self.trusts(address):
            self._close_old(address, self._open[address] - MOST_OF_ADDRESS)
        if self._open.total() > self._most:
            ((crowd, _),) = self._open.most_common(1)
            self._close_oldest(crowd)

    def trusts(self, address: str) -> bool:
        """Whether an address is a trusted proxy's, which speaks for many."""
        return address in self._proxies

    def begin(self, connection: "PatientProtocol", address: str) -> None:
        """A connection waits for the other side: to ask, to say the rest, or to listen."""
        self._unfinished.setdefault(connection, (address, time.monotonic()))

    def finish(self, connection: "PatientProtocol") -> None:
        """A request is whole: its connection is not closed."""
        self._unfinished.pop(connection, None)

    def leave(self, connection: "PatientProtocol", address: str) -> None:
        """A connection is gone."""
        self._unfinished.pop(connection, None)
        self._open[address] -= 1
        # forgotten with the last, or else strangers fill the memory
        if self._open[address] <= 0:
            del self._open[address]

    def count(self) -> int:
        """How many connections there are."""
        return self._open.total()

    def _close_old(self, address: str, too_many: int) -> None:
        """Close the oldest of an address, so many, that had time to say something: what came with
        many others at once may not have been read yet.
        """
        if too_many <= 0:
            return
        until = time.monotonic() - FIRST_WORD_S
        for one, (place, since) in list(self._unfinished.items()):
            if too_many and place == address and since < until:
                too_many -= 1
                self._close(one)

    def _close_oldest(self, address: str) -> None:
        """Close the oldest of an address, or of any."""
        of_address = [one for one, (place, _) in self._unfinished.items() if place == address]
        oldest = next(iter(of_address or self._unfinished), None)
        if oldest is not None:
            self._close(oldest)

    def _close(self, connection: "PatientProtocol") -> None:
        self._unfinished.pop(connection)
        connection.drop()


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, whose patience ends. `make_protocol` sets `waiting`, which is the
    server's.
    """

    waiting: Waiting

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._awaited: object = None
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self._address = peer if self.waiting.trusts(peer) else name_client(peer)
        self.waiting.enter(self, self._address)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection ends."""
        self._stop()
        self._stop_stall()
        self.waiting.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """A request was answered: the next may come."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Nobody takes the answer: as in a request, the connection may go."""
        super().pause_writing()
        self.waiting.begin(self, self._address)
        self._stall = self.loop.call_later(STALL_S, self.drop)

    def resume_writing(self) -> None:
        """The answer is taken again."""
        super().resume_writing()
        self._stop_stall()
        if self._awaited not in PATIENCE:
            self.waiting.finish(self)

    def drop(self) -> None:
        """Close the connection at once, whatever of an answer is still to be sent."""
        self.transport.abort()

    def _look(self) -> None:
        """Count down where the other side is to say something: from when on it is, however little
        it says meanwhile.
        """
        awaited = self.conn.their_state
        if awaited is self._awaited:
            return
        self._awaited = awaited
        self._stop()
        if awaited not in PATIENCE:
            self.waiting.finish(self)
            return
        self.waiting.begin(self, self._address)
        self._deadline = self.loop.call_later(PATIENCE[awaited], self.drop)

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def make_protocol(proxies: Proxies) -> type[PatientProtocol]:
    """The protocol of one server."""
    return type("ServerProtocol", (PatientProtocol,), {"waiting": Waiting(proxies)})


def count_usable_files() -> int:
    """How many files and connections the process may have open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 2 * MOST_CONNECTIONS
    usable, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return usable
