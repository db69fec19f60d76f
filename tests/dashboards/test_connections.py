"""Connections that are held open without asking anything whole."""

import socket
import time
from collections.abc import Callable

import pytest
from doors import SHARED
from half_open import HALF, HALF_FORM, WHOLE, ask, count_alive, hold_open, serve_pages

from poisonwatch.dashboards import connections
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.door import Door

EVERYBODY = Access(user="root", password="correct horse", proxies=("127.0.0.1",))


def wait_until(met: Callable[[], bool]) -> None:
    """Return once it is so; the test fails where it never is."""
    until = time.monotonic() + 60
    while not met():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("begun", [b"", HALF, HALF_FORM], ids=["nothing", "headers", "form"])
@pytest.mark.parametrize("access", [SHARED, EVERYBODY], ids=["own address", "trusted proxy"])
def test_the_dashboard_answers_under_300_half_open_connections(
    access: Access, begun: bytes
) -> None:
    """Whole requests from the same address, one after another; the oldest half-open ones go where
    there are more than an address may have.
    """
    with serve_pages(Door(access)) as port, hold_open(port, 300, begun) as held:
        for _ in range(3):
            line, _ = ask(port)
            assert line == b"HTTP/1.1 200 OK"
        if access is EVERYBODY:
            return

        def few_are_left() -> bool:
            assert ask(port)[0] == b"HTTP/1.1 200 OK"
            return count_alive(held) <= connections.MOST_OF_ADDRESS

        wait_until(few_are_left)
        assert count_alive(held[:100]) == 0


def test_headers_that_do_not_come_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a byte comes now and then: each does not make the time longer."""
    monkeypatch.setitem(connections.PATIENCE, connections.h11.IDLE, 0.5)
    with serve_pages(Door(SHARED)) as port, hold_open(port, 3) as held:

        def trickle() -> bool:
            for connection in held:
                try:
                    connection.send(b"x")
                except OSError:
                    continue
            return count_alive(held) == 0

        wait_until(trickle)


def test_a_form_that_does_not_come_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And leaves no traceback in the log, which strangers could fill."""
    monkeypatch.setitem(connections.PATIENCE, connections.h11.SEND_BODY, 0.5)
    with serve_pages(Door(SHARED)) as port, hold_open(port, 3, HALF_FORM) as held:
        wait_until(lambda: count_alive(held) == 0)
        assert ask(port)[0] == b"HTTP/1.1 200 OK"
    assert "Traceback" not in caplog.text
    assert "Exception" not in caplog.text


def test_an_answer_that_nobody_takes_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it would be held open by asking often and reading nothing."""
    monkeypatch.setattr(connections, "STALL_S", 0.5)
    many = WHOLE.replace(b"Connection: close\r\n", b"") * 1000
    with serve_pages(Door(SHARED)) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.settimeout(60)

        def send_more() -> None:
            while True:
                deaf.sendall(many)

        with pytest.raises(ConnectionError):
            send_more()
        assert ask(port)[0] == b"HTTP/1.1 200 OK"


def test_a_connection_may_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request has its own time; several may come at once."""
    monkeypatch.setitem(connections.PATIENCE, connections.h11.IDLE, 30.0)
    again = WHOLE.replace(b"Connection: close\r\n", b"")
    with (
        serve_pages(Door(SHARED)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
    ):
        for sent, answers in ((again, 1), (again[:20], 0), (again[20:], 1), (again * 3, 3)):
            connection.sendall(sent)
            said = b""
            while said.count(b"HTTP/1.1 200 OK") < answers or not said.endswith(b"</html>"):
                if not answers:
                    break
                said += connection.recv(100_000)
            assert said.count(b"HTTP/1.1 200 OK") == answers


def test_what_works_is_not_closed_for_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request at work is whole: of an address with too many connections others go."""
    monkeypatch.setattr(connections, "MOST_OF_ADDRESS", 5)
    door = Door(SHARED)
    for _ in range(4):
        door.guesses.begin("127.0.0.1", "")
    form = b"name=Ann&password=wrong+horse"
    login = HALF_FORM.replace(b"1000", str(len(form)).encode()).replace(b"name=A", form)
    with (
        serve_pages(door) as port,
        socket.create_connection(("127.0.0.1", port), timeout=60) as working,
    ):
        working.sendall(login)
        with hold_open(port, 20):
            assert working.recv(12) in (b"HTTP/1.1 401", b"HTTP/1.1 429")


def test_the_server_has_room_for_so_many_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusted proxies, too; the limit of open files leaves room for the ledger and its files."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 50)
    with serve_pages(Door(EVERYBODY)) as port, hold_open(port, 100) as held:
        wait_until(lambda: count_alive(held) <= 50)
        assert ask(port)[0] == b"HTTP/1.1 200 OK"
    assert connections.count_usable_files() > 100


def test_nothing_is_remembered_of_connections_that_are_gone() -> None:
    """Or else strangers fill the memory."""
    door = Door(SHARED)
    protocol = connections.make_protocol(door.proxies)
    other = connections.make_protocol(door.proxies)
    assert protocol.waiting is not other.waiting
    with serve_pages(door) as port:
        for _ in range(20):
            ask(port)
        with hold_open(port, 5):
            pass
        assert ask(port)[0] == b"HTTP/1.1 200 OK"
