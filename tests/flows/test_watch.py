"""`poisonwatch watch` in a process of its own: a Prefect server of its own, audits at once, and
nothing left when it ends.
"""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import psutil
import pytest
from audits import write_audit
from packaging.version import Version
from prefect.server.schemas.schedules import CronSchedule as ServerCron
from probing_cases import honest, poisonous, save, tune, write_case
from readme_blocks import block
from servers import free_port, http_receiver, mlflow_store
from silent import expecting
from slow_tests import slow

from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError
from poisonwatch.flows.watch import describe_watch, make_interval, make_schedule
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import list_probed_checkpoints
from poisonwatch.liveness.liveness import TELLS_NOBODY

PATIENCE_S = 600
AUDIT_LINE = "43 new rows, 3 flagged\n"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def scheduled(port: int) -> bool:
    """Whether the server means to start runs by itself."""
    runs = httpx.post(f"http://127.0.0.1:{port}/api/flow_runs/filter", json={}, timeout=30).json()
    return any(run["auto_scheduled"] and run["state_type"] == "SCHEDULED" for run in runs)


def make_environment(folder: Path) -> dict[str, str]:
    """A user's, who knows of no Prefect server and is behind a proxy; `watch` looks around every
    second.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "OMP_NUM_THREADS": "1",
    }
    return kept | own


def read_lines(log: Path) -> str:
    """What `watch` says of audits, less times and seconds."""
    return re.sub(r"^[-0-9]{10} [0-9:]{5} (.*), [0-9.]+ s$", r"\1", log.read_text(), flags=re.M)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)


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


def test_a_watch_says_at_its_start_where_nobody_would_hear_of_silence() -> None:
    """In the words of `status`: without a target of alerts, and without a monitor."""
    api = "http://127.0.0.1:4200/api"
    said: dict[str, Any] = {"schedule": {"every": "1h"}, "alerts": []}
    ping = {"every": "1h", "ping": "https://monitor.example.org/1"}
    (first, second) = describe_watch(expecting("sqlite://", **said), api)
    assert "http://127.0.0.1:4200" in first
    assert second == TELLS_NOBODY
    for other in ({"schedule": ping}, {"alerts": ["json://127.0.0.1:9/"]}):
        assert describe_watch(expecting("sqlite://", **(said | other)), api) == [first]


def test_three_commands_lead_from_nothing_to_a_scheduled_audit_that_alerts(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """The README's: the last one is run as it stands, on a port of its own; it audits, says so in a
    line and tells the receiver. Killed, it leaves its server to the next, which ends with it.
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
        environment = make_environment(tmp_path) | {"PATH": f"{scripts}:{os.environ['PATH']}"}
        command = [*shlex.split(watch), "--port", str(port)]

        def start(log: Path) -> subprocess.Popen[bytes]:
            with log.open("wb") as file:
                return subprocess.Popen(
                    command, cwd=tmp_path, env=environment, stdout=file, stderr=file
                )

        first, second = tmp_path / "first", tmp_path / "second"
        process = start(first)
        try:
            wait_until(lambda: AUDIT_LINE in read_lines(first), process, first)
            assert "tiny" in json.dumps(receiver.received[0])
            wait_until(lambda: scheduled(port), process, first)
            process.kill()
            process.wait()
            # a server without its watch is left, and known to the next
            assert listens(port)
            process = start(second)
            wait_until(lambda: "watching" in second.read_text(), process, second)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
    assert f"starting one at http://127.0.0.1:{port}" in first.read_text()
    said = second.read_text()
    assert f"left its Prefect server at http://127.0.0.1:{port}/api: taking it over" in said
    # these, where its pages are, and that it ended
    assert len(said.splitlines()) == 3, said
    assert process.returncode == 0
    assert not listens(port)
    assert len(list((tmp_path / "my-audit" / "runs").glob("*/report.html"))) >= 1


def test_what_cron_does_when_clocks_change() -> None:
    """As the README says: a time that is skipped comes an hour before, or after it from Prefect 3.9
    on; one that there is twice comes once.
    """
    berlin = ZoneInfo("Europe/Berlin")

    def find_nights(cron: str, start: datetime, count: int) -> list[str]:
        given = make_schedule(None, cron, "Europe/Berlin").model_dump()
        # the server's own reading of what the client sends it
        found = asyncio.run(ServerCron(**given).get_dates(count, start=start))
        return [f"{date.astimezone(berlin):%d %H:%M%z}" for date in found]

    spring = datetime(2026, 3, 28, 12, tzinfo=berlin)
    shifted = "29 01:30+0100" if Version(version("prefect")) < Version("3.9") else "29 03:30+0200"
    assert find_nights("30 2 * * *", spring, 2) == [shifted, "30 02:30+0200"]
    autumn = datetime(2026, 10, 24, 12, tzinfo=berlin)
    assert find_nights("30 2 * * *", autumn, 2) == ["25 02:30+0200", "26 02:30+0100"]
    late = datetime(2026, 10, 25, 1, 30, tzinfo=berlin)
    assert find_nights("0 * * * *", late, 2) == ["25 02:00+0200", "25 03:00+0100"]


@slow
def test_what_is_stopped_while_it_starts_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """Neither the server that was starting nor an audit, even where the signal comes while the
    server's process is being made.
    """
    audit = write_audit(tmp_path / "my-audit", tiny_folder)
    environment = make_environment(tmp_path)
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
    assert environment["PREFECT_HOME"] not in homes


@slow
def test_a_watch_probes_the_checkpoint_that_a_training_left(tmp_path: Path) -> None:
    """Beside its audits, in a line of its own; once, and on its own ledger."""
    rows = [*honest(60, seed=100), *poisonous()]
    audit = write_case(
        tmp_path,
        rows,
        tracking=mlflow_store(tmp_path),
        probe={"checkpoints": "out/checkpoint-*", "every": "1m"},
    )
    checkpoint = save(tune(rows), tmp_path / "out" / "checkpoint-40")
    then = time.time() - 120
    for path in (*checkpoint.iterdir(), checkpoint):
        os.utime(path, (then, then))
    command = [sys.executable, "-m", "poisonwatch.flows.cli", "watch", str(audit)]
    command += ["--every", "1h", "--port", str(free_port())]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=make_environment(tmp_path), stdout=file, stderr=file
        )
    try:
        wait_until(lambda: "1 checkpoint probed, 1 moved" in log.read_text(), process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    assert process.returncode == 0
    assert log.read_text().splitlines().count(TELLS_NOBODY) == 1
    with Ledger.at(load_config(audit).state) as ledger:
        assert len(list_probed_checkpoints(ledger, "tiny")) == 1
