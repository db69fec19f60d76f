"""Who answers is there, whatever is answered; who does not is told of, within seconds."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import free_port

from poisonwatch.liveness.reach import probe, probe_all
from poisonwatch.text.sqlite_files import place_sqlite_file


class _Answers(http.server.BaseHTTPRequestHandler):
    """With the number in the path; sends others to nowhere."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def answering() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_whoever_answers_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also who asks for a password, knows no such page, or sends elsewhere; not who is out of
    order. A server on this machine is asked without the proxy that others need.
    """
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering() as host:
        for status in (200, 204, 302, 401, 403, 404):
            assert probe(f"http://ann:secret@{host}/{status}?token=x", "/health") == ""
        assert probe(f"http://{host}/503", "/health") == "answers 503"


def test_whoever_does_not_answer_is_told_of() -> None:
    """Nobody listens; a database's port; a name that is none."""
    port = free_port()
    for address in (f"http://127.0.0.1:{port}", f"postgresql+psycopg://a:b@127.0.0.1:{port}/db"):
        assert probe(address) == "cannot be reached (Connection refused)"
    assert probe("http://nowhere.invalid").startswith("cannot be reached (")
    assert probe("postgresql://127.0.0.1:port/db") == "has no address that can be read"


def test_a_database_that_listens_is_there() -> None:
    """Nobody logs in."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert probe(f"postgresql://ann:hunter2@127.0.0.1:{port}/mlflow") == ""
        # a scheme of somebody's own: nothing is known of how it is asked
    assert probe("databricks://profile") == ""


def test_a_store_that_is_a_file_is_looked_up(tmp_path: Path) -> None:
    """It may be made by the first audit; its folder may not."""
    assert probe(f"sqlite:///{tmp_path / 'new.db'}") == ""
    assert (
        probe(f"sqlite:///{tmp_path / 'gone' / 'new.db'}") == "is in a folder that does not exist"
    )
    odd = tmp_path / "a?b #1%"
    placed = place_sqlite_file("sqlite:///new.db", str(odd))
    assert probe(placed) == "is in a folder that does not exist"
    odd.mkdir()
    assert probe(placed) == ""
    assert probe("sqlite:///:memory:") == ""
    assert probe(str(tmp_path / "gone" / "mlruns")) == "is in a folder that does not exist"


def test_a_server_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """All are asked at once; who has not answered when time is over does not answer in time."""
    with socket.create_server(("127.0.0.1", 0)) as silent, answering() as host:
        hangs = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        found = probe_all(
            {"one": (hangs, "/health"), "two": (hangs, ""), "three": (f"http://{host}/200", "")},
            patience_s=60,
            deadline_s=1.5,
        )
        assert time.monotonic() - began < 30
        late = "does not answer in time"
        assert found == {"one": late, "two": late, "three": ""}
        assert probe(hangs, patience_s=0.2) == late
