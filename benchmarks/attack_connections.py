"""Connections held open with headers that never end, against the real dashboard."""

import contextlib
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attack_site import CLI, Line, prepare_site, run_forked, use_test_support

PASSWORD = "correct horse battery staple"  # noqa: S105  (of a dashboard that lives for a minute)
START_S = 120
ASKED_S = 2.0
HALF_OPEN = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Held: "


@contextmanager
def serve_dashboard(config: Path) -> Iterator[str]:
    """The dashboard as a user starts it, with a password: its address."""
    use_test_support()
    from servers import free_port

    port = free_port()
    command = [*CLI, "dashboard", str(config), "--port", str(port)]
    environment = {**os.environ, "POISONWATCH_DASHBOARD_PASSWORD": PASSWORD}
    with (config.parent / "dashboard.log").open("ab") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_until_answered(address)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def wait_until_answered(address: str) -> None:
    """Raises TimeoutError where nothing answers in time."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            ask(address, 5)
            return
        time.sleep(0.2)
    raise TimeoutError(f"no dashboard at {address}")


def ask(address: str, timeout_s: float) -> tuple[float, int]:
    """Seconds until a page of the dashboard has come whole, over a connection of its own, and the
    status. Raises OSError where it does not.
    """
    place = urlsplit(address)
    start = time.monotonic()
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=timeout_s)
    try:
        connection.request("GET", "/login")
        answer = connection.getresponse()
        answer.read()
        return time.monotonic() - start, answer.status
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def hold_open(address: str, connections: int, stack: ExitStack) -> list[socket.socket]:
    """So many connections whose headers have begun."""
    place = urlsplit(address)
    held = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            one = stack.enter_context(socket.create_connection((place.hostname, place.port), 5))
            one.sendall(HALF_OPEN)
            held.append(one)
    return held


def drip(held: list[socket.socket]) -> int:
    """Send one more byte of a header on each; how many took it."""
    taken = 0
    for one in held:
        with contextlib.suppress(OSError):
            one.sendall(b"x")
            taken += 1
    return taken


def hold_connections(folder: Path, model: Path, connections: int, asked: int) -> dict[str, Any]:
    """Hold connections open and ask for pages meanwhile: how long the slowest took, how many were
    refused.
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit_inline

    seconds, refused, last = [], 0, 0
    with prepare_site(folder, model) as site:

        def audit() -> None:
            audit_inline(load_config(site.config), folder / "runs" / "first")

        os.waitpid(run_forked(audit, folder / "log"), 0)
        with serve_dashboard(site.config) as address, ExitStack() as stack:
            before, _ = ask(address, 30)
            held = hold_open(address, connections, stack)
            for _ in range(asked):
                last = drip(held)
                try:
                    took, status = ask(address, 30)
                    refused += status != 200
                    seconds.append(took)
                except OSError:
                    refused += 1
                time.sleep(0.2)
    return {
        "held": len(held),
        "held at the end": last,
        "asked": asked,
        "refused": refused,
        "before": before,
        "slowest": max(seconds, default=float("inf")),
    }


def summarise_connections(found: dict[str, Any]) -> list[Line]:
    holds = found["refused"] == 0 and found["slowest"] < ASKED_S
    shown = (
        f"slowest of {found['asked']} pages {found['slowest']:.2f} s, {found['refused']} refused, "
        f"{found['held at the end']} still open"
    )
    what = "half-open connections to the dashboard"
    return [Line(what, found["held"], f"a page within {ASKED_S:.0f} s", shown, holds)]
