"""Connections that are held open without asking anything whole, against a real server."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from doors import make_pages

from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.serving import make_server

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_FORM = (
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nname=A"
)
WHOLE = b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@contextmanager
def serve_pages(door: Door) -> Iterator[int]:
    """A few pages behind the door on a port of their own: the port."""
    server = make_server(make_pages(door), door.proxies)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def hold_open(port: int, n: int, begun: bytes = HALF) -> Iterator[list[socket.socket]]:
    """n connections that have sent the beginning of a request."""
    with ExitStack() as stack:
        held = []
        for _ in range(n):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with suppress(OSError):
                connection.sendall(begun)
            held.append(connection)
        yield held


def ask(port: int, request: bytes = WHOLE) -> tuple[bytes, float]:
    """The first line of the answer, and the seconds that it took."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        said = connection.recv(1000)
    return said.partition(b"\r\n")[0], time.perf_counter() - begun


def count_alive(held: list[socket.socket]) -> int:
    """How many of the connections the server has not closed."""
    alive = 0
    for connection in held:
        connection.setblocking(False)
        try:
            alive += connection.recv(1) != b""
        except BlockingIOError:
            alive += 1
        except OSError:
            continue
    return alive
