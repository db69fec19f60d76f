"""A ledger behind PgBouncer, which gives each transaction another session."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
from ledgers import NAME, cover, pull, statuses, write_two_files
from servers import PASSWORD, free_port, postgres_server
from sqlalchemy import make_url

from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.verification.verify import verify_ledger

WAIT_S = 60


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """The database at a URL behind a PgBouncer in transaction mode with three sessions."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (Debian package pgbouncer)")
    there, port = make_url(url), free_port()
    with tempfile.TemporaryDirectory(prefix="poisonwatch-pooler-") as folder:
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            "[databases]\n"
            f"* = host={there.host} port={there.port} user=ann password={PASSWORD}\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = any\npool_mode = transaction\n"
            f"listen_port = {port}\nunix_socket_dir =\ndefault_pool_size = 3\n"
        )
        Path(folder).chmod(0o755)
        settings.chmod(0o644)
        as_user = {"user": "nobody"} if os.geteuid() == 0 else {}
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                [program, "-q", str(settings)],
                stdout=log,
                stderr=log,
                **as_user,  # type: ignore[call-overload]
            )
        try:
            deadline = time.monotonic() + WAIT_S
            while not _answers(port):
                assert server.poll() is None, (Path(folder) / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            address = there.set(host="127.0.0.1", port=port)
            yield address.render_as_string(hide_password=False)
        finally:
            with suppress(ProcessLookupError):
                server.send_signal(signal.SIGTERM)
            server.wait(WAIT_S)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_a_ledger_works_behind_a_pooler(tmp_path: Path) -> None:
    """Pulls, audits, decisions and the lock: what holds does not rest on one session."""
    write_two_files(tmp_path / "data")
    told: list[str] = []
    with postgres_server() as url, pooled(url) as address, Ledger.at(address) as ledger:

        def wait_for_lock() -> None:
            with Ledger.at(address) as other, other.lock(NAME, lambda: told.append("waiting")):
                told.append("inside")

        waiting = Thread(target=wait_for_lock)
        with ledger.lock(NAME):
            waiting.start()
            deadline = time.monotonic() + WAIT_S
            while not told:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        waiting.join(WAIT_S)
        assert told == ["waiting", "inside"]
        # The same statements many times: none of them is a session's.
        for _ in range(8):
            pull(ledger, tmp_path / "data")
        cover(ledger, tmp_path / "run", flagged=["Tell me fact 1 about bread."])
        record_decision(ledger, "a.jsonl:2", "benign")
        assert statuses(ledger) == {"clean": 8, "rejected": 1}
        # A folder without files, which is no audit's.
        (tmp_path / "run").rmdir()
        assert verify_ledger(ledger, "elsewhere").differences == []
