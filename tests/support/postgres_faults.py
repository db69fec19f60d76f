"""What happens to connections to a PostgreSQL server: sessions are ended, the server restarts, a
COMMIT gets no answer.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

from servers import find_postgres_programs
from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from poisonwatch.sources.sql import parse_database_url

ENDED = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()
"""


@contextmanager
def connect(url: str) -> Iterator[Connection]:
    """A connection on which each statement is a transaction."""
    engine = create_engine(parse_database_url(url, "state"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def new_database(url: str, **settings: str) -> Iterator[str]:
    """A database of its own on the server at a URL, with these settings: its URL."""
    name = f"test_{uuid4().hex[:12]}"
    with connect(url) as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        for setting, value in settings.items():
            connection.execute(text(f"ALTER DATABASE {name} SET {setting} = '{value}'"))
    yield make_url(url).set(database=name).render_as_string(hide_password=False)


def end_sessions(url: str) -> int:
    """End every other session on the database at a URL: how many there were."""
    with connect(url) as connection:
        return len(connection.execute(text(ENDED)).all())


def restart(url: str) -> None:
    """Restart the server at a URL, as it was started, and return once it answers."""
    with connect(url) as connection:
        data = Path(connection.execute(text("SHOW data_directory")).scalar_one())
    owner = data.stat()
    as_owner: dict[str, object] = {}
    if os.geteuid() == 0:
        as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    command = [str(find_postgres_programs() / "pg_ctl"), "restart", "--wait", "--mode=fast"]
    done = subprocess.run(
        [*command, f"--pgdata={data}", f"--log={data.parent / 'log'}"],
        cwd=data.parent,
        check=False,
        capture_output=True,
        **as_owner,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr


@dataclass
class Wire:
    """A connection to a server by way of somebody else, who cuts it once: at the next COMMIT,
    before the server gets it, or before its answer comes back.
    """

    address: str
    port: int
    cut: Literal["", "before", "after"] = ""
    cuts: list[str] = field(default_factory=list)
    # Ends that the server still takes for its client's.
    left: list[int] = field(default_factory=list)


@contextmanager
def wire_to(url: str) -> Iterator[Wire]:
    """A way to the server at a URL, whose URL is the wire's `address`."""
    there = make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        address = there.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        wire = Wire(address, port)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection((there.host or "", there.port or 5432))
                    pair = threading.Thread(target=_carry, args=(wire, near, far), daemon=True)
                    pair.start()

        threading.Thread(target=accept, daemon=True).start()
        yield wire
        for end in wire.left:
            os.close(end)


def _carry(wire: Wire, near: socket.socket, far: socket.socket) -> None:
    def back() -> None:
        with suppress(OSError):
            while sent := far.recv(65536):
                near.sendall(sent)
            near.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=back, daemon=True).start()
    with suppress(OSError), near, far:
        while sent := near.recv(65536):
            if wire.cut and b"COMMIT" in sent:
                wire.cuts.append(wire.cut)
                # The client knows at once; the server is left waiting for more.
                near.shutdown(socket.SHUT_RDWR)
                if wire.cut == "after":
                    far.sendall(sent)
                wire.cut = ""
                wire.left.append(far.detach())
                return
            far.sendall(sent)
