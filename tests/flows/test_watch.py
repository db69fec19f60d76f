"""`poisonwatch watch` in a process of its own: a Prefect server of its own, audits at once, and
nothing left when it ends.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from audits import write_audit
from readme_blocks import block
from servers import free_port, http_receiver, mlflow_store

from poisonwatch.errors import InputError
from poisonwatch.flows.watch import make_interval, make_schedule


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def scheduled(port: int) -> bool:
    """Whether the server means to start runs by itself."""
    runs = httpx.post(f"http://127.0.0.1:{port}/api/flow_runs/filter", json={}, timeout=30).json()
    return any(run["auto_scheduled"] and run["state_type"] == "SCHEDULED" for run in runs)


def test_a_schedule_is_one_of_interval_and_cron() -> None:
    """And what is neither says what would be."""
    assert make_schedule(timedelta(hours=1), None, "UTC").interval == timedelta(hours=1)  # type: ignore[union-attr]
    assert make_schedule(None, "0 2 * * *", "Europe/Berlin").timezone == "Europe/Berlin"
    for every, cron, zone, said in (
        (None, None, "UTC", "one of --every and --cron"),
        (timedelta(hours=1), "0 2 * * *", "UTC", "one of --every and --cron"),
        (None, "nonsense", "UTC", "--cron nonsense is no cron expression"),
        (None, "0 2 * * *", "Mars/Phobos", "--timezone Mars/Phobos is no time zone"),
    ):
        with pytest.raises(InputError, match=said):
            make_schedule(every, cron, zone)
    with pytest.raises(InputError, match="too often"):
        make_interval(timedelta(seconds=59))


def test_three_commands_lead_from_nothing_to_a_scheduled_audit_that_alerts(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """The README's: the last one is run as it stands, on a port of its own; it audits, tells the
    receiver, and ends with its server.
    """
    install, init, watch = block("One process")
    assert install == "pip install ."
    assert init == "poisonwatch init my-audit"
    port = free_port()
    with http_receiver() as receiver:
        settings = {
            "detection": {"false_discovery_rate": 0.9},
            "alerts": [f"json://{receiver.address}/"],
            "tracking": mlflow_store(tmp_path),
            "name": "tiny/rows",  # Prefect allows no slash in the name of a deployment
        }
        write_audit(tmp_path / "my-audit", tiny_folder, **settings)
        scripts = Path(sys.executable).parent
        own = {
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")
        } | own
        log = tmp_path / "log"
        with log.open("wb") as file:
            command = [*shlex.split(watch), "--port", str(port)]
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=file, stderr=file
            )
        try:
            deadline = time.monotonic() + 240
            while not receiver.received and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.3)
            assert receiver.received, log.read_text()
            assert "tiny" in json.dumps(receiver.received[0])
            while not scheduled(port):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    said = log.read_text()
    assert f"starting one at http://127.0.0.1:{port}" in said
    assert re.search(r"watching tiny/rows: .* Ctrl-C ends it", " ".join(said.split()))
    assert "Traceback" not in said
    assert process.returncode == 0
    assert not listens(port)
    assert len(list((tmp_path / "my-audit" / "runs").glob("*/report.html"))) == 1


def test_what_is_stopped_while_it_starts_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """Neither the server that was starting nor an audit, even where the signal comes while the
    server's process is being made.
    """
    audit = write_audit(tmp_path / "my-audit", tiny_folder)
    own = {"PREFECT_HOME": str(tmp_path / "prefect"), "OMP_NUM_THREADS": "1"}
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")
    } | own
    command = [
        sys.executable,
        "-m",
        "poisonwatch.flows.cli",
        "watch",
        str(audit),
        "--every",
        "1h",
        "--port",
        str(free_port()),
    ]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "starting one" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0
    assert "stopped watching" in rest
    assert "Traceback" not in rest
    homes = [
        (p.info["environ"] or {}).get("PREFECT_HOME") for p in psutil.process_iter(["environ"])
    ]
    assert own["PREFECT_HOME"] not in homes
