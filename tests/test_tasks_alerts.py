"""Alerts reach a real HTTP receiver, and carry no row text."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from audits import write_audit

from poisonwatch.config import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import Outcome, audit_inline
from poisonwatch.tasks.alerts import alert


class Receiver(HTTPServer):
    """Keeps what it is sent."""

    received: list[dict[str, str]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = Receiver(("127.0.0.1", 0), Handler)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Outcome:
    folder = tmp_path_factory.mktemp("alerts")
    # A lax rate, so that something is flagged on random weights: what is sent is tested here, not what is found.
    config = load_config(write_audit(folder, tiny_folder, decision={"false_discovery_rate": 0.99}))
    found = audit_inline(config, folder / "run")
    assert found.verdicts.flags
    return found


def test_an_alert_names_rows_and_no_text(receiver: Receiver, outcome: Outcome) -> None:
    """Count, source, row, panel and report; never what the row says."""
    alert.fn([f"json://127.0.0.1:{receiver.server_port}/"], "tiny", outcome.verdicts, "report.html")
    (message,) = receiver.received
    flag = outcome.verdicts.flags[0]
    assert message["title"] == f"Poisonwatch: {len(outcome.verdicts.flags)} of 43 new rows flagged in tiny"
    assert f"rows.jsonl, row {flag.example.position}: shop" in message["message"]
    assert "report.html" in message["message"]
    assert flag.example.response not in message["message"]


def test_a_target_that_is_down_is_an_error(outcome: Outcome) -> None:
    """Nothing listens on port 9 of this machine; the URL, which may hold a token, is not repeated."""
    with pytest.raises(OperationError, match="not delivered") as error:
        alert.fn(["json://user:hunter2@127.0.0.1:9/"], "tiny", outcome.verdicts, "report.html")
    assert "hunter2" not in str(error.value)


def test_a_url_of_no_known_kind_is_an_error(outcome: Outcome) -> None:
    """Named by its place in the list."""
    with pytest.raises(OperationError, match="number 1 of `alerts` is no Apprise URL"):
        alert.fn(["nonsense://x"], "tiny", outcome.verdicts, "report.html")
