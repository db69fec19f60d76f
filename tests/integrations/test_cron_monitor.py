"""Pings reach a real receiver: when an audit starts, succeeds, fails; and the address is told nobody."""

import http.server
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from audits import benign, write_audit
from planted_secrets import count_in_files, count_in_text
from servers import free_port, mlflow_store

from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError, OperationError, PoisonwatchError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.cron_monitor import TRIES, ping_monitor
from poisonwatch.schedule_config import ScheduleConfig

TOKEN = "3f2a91c0-7d11-4e0f-8c11-0a1b2c3d4e5f"


class Monitor(http.server.ThreadingHTTPServer):
    """Takes pings: their paths, and the `answers` that it gives, the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MonitorHandler)
        self.pings: list[str] = []
        self.answers = [200]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ping/{TOKEN}"


class _MonitorHandler(http.server.BaseHTTPRequestHandler):
    server: Monitor

    def do_GET(self) -> None:
        self.server.pings.append(self.path)
        answers = self.server.answers
        self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def running() -> Iterator[Monitor]:
    with Monitor() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with running() as server:
        yield server


def test_a_monitor_hears_of_what_it_asked_for(monitor: Monitor) -> None:
    """The results alone, unless it documents more."""
    plain = ScheduleConfig(ping=f"{monitor.url}?rid=1")
    assert not ping_monitor(plain, "start")
    assert ping_monitor(plain, "success")
    assert not ping_monitor(plain, "fail")
    assert monitor.pings == [f"/ping/{TOKEN}?rid=1"]
    every = ScheduleConfig(ping=f"{monitor.url}/?rid=1", ping_on=["start", "success", "fail"])
    assert ping_monitor(every, "start")
    assert ping_monitor(every, "fail")
    assert monitor.pings[1:] == [f"/ping/{TOKEN}/start?rid=1", f"/ping/{TOKEN}/fail?rid=1"]
    assert not ping_monitor(ScheduleConfig(), "success")


def test_a_monitor_that_is_out_of_order_is_asked_again(monitor: Monitor) -> None:
    """One that refuses is not."""
    monitor.answers = [503, 200]
    assert ping_monitor(ScheduleConfig(ping=monitor.url), "success")
    assert len(monitor.pings) == 2
    monitor.answers = [404]
    with pytest.raises(OperationError, match="answered 404"):
        ping_monitor(ScheduleConfig(ping=monitor.url), "success")
    assert len(monitor.pings) == 3
    monitor.answers = [500]
    with pytest.raises(OperationError, match="answered 500"):
        ping_monitor(ScheduleConfig(ping=monitor.url), "success")
    assert len(monitor.pings) == 3 + TRIES


def test_no_error_and_no_log_repeats_the_address(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever knows it can keep the monitor quiet."""
    caplog.set_level(logging.DEBUG)
    said = []
    monitor.answers = [404]
    monkeypatch.setenv("MONITOR", f"http://127.0.0.1:{free_port()}/{TOKEN}")
    monkeypatch.setenv("NO_ADDRESS", TOKEN)
    for ping in (monitor.url, "${MONITOR}", "${NO_ADDRESS}", f"http://no host/{TOKEN}"):
        with pytest.raises(PoisonwatchError) as failed:
            ping_monitor(ScheduleConfig(ping=ping), "success")
        assert failed.value.__cause__ is None
        said.append(str(failed.value))
    assert "cannot be reached" in said[1]
    assert count_in_text("\n".join([*said, caplog.text]), TOKEN) == 0
    with pytest.raises(ConfigError, match=r"holds \*\*\*"):
        ping_monitor(ScheduleConfig(ping="https://***"), "success")


def test_an_audit_pings_at_its_start_and_its_end(
    monitor: Monitor, tiny_folder: Path, tmp_path: Path
) -> None:
    """One that fails says so; one whose monitor is down is told in a warning; the address is in
    nothing that is left.
    """
    schedule = {"every": "1h", "ping": monitor.url, "ping_on": ["start", "success", "fail"]}
    more = {"tracking": mlflow_store(tmp_path / "mlflow"), "review": False, "schedule": schedule}
    path = write_audit(tmp_path / "in", tiny_folder, rows=benign(8), reference=None, **more)
    config = load_config(path)
    assert audit_inline(config, tmp_path / "out" / "one").warnings == []
    assert monitor.pings == [f"/ping/{TOKEN}/start", f"/ping/{TOKEN}"]
    monitor.answers = [410]
    (warning,) = audit_inline(config, tmp_path / "out" / "two").warnings
    assert "the monitor of schedule.ping answered 410" in warning
    (tmp_path / "in" / "rows.jsonl").unlink()
    with pytest.raises(PoisonwatchError, match="does not exist"):
        audit_inline(config, tmp_path / "out" / "three")
    assert monitor.pings[-2:] == [f"/ping/{TOKEN}/start", f"/ping/{TOKEN}/fail"]
    assert count_in_files(tmp_path, TOKEN, besides=["audit.yaml"]) == {}
