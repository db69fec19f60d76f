"""What deployments/ holds, on a real Prefect server with a real worker: runs start by schedule,
crashes are retried, overlaps wait, and nothing that died holds others up.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import yaml
from audits import write_audit
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Pending
from readme_blocks import DEPLOYMENTS, block
from servers import free_port, http_receiver, mlflow_store
from slow_tests import slow
from templates import prefect_home

from poisonwatch.ledger.locks import lock_file

TRAINING = "poisonwatch-drill/my-audit"  # as if this trained on the rows
# In which nothing moves: workers and automations ask every few seconds, but a worker whose server was
# away may have to begin anew, on a machine where ten others are at work.
PATIENCE_S = 900


@dataclass(frozen=True)
class Service:
    """A server and a worker, started by the README's commands."""

    client: SyncPrefectClient
    audit: Path
    other_audit: Path
    """The same with a ledger of its own: no run by schedule waits for what goes on there."""
    received: list[Any]
    restart: Callable[[], None]
    """Kills the server, and starts it again."""

    def runs(self, name: str = "my-audit") -> list[Any]:
        """The audit's flow runs of a deployment, in the order in which they were made."""
        found = self.client.read_deployment_by_name(f"poisonwatch-audit/{name}")
        return sorted(
            (run for run in self.client.read_flow_runs() if run.deployment_id == found.id),
            key=lambda run: run.created,
        )

    def start(self, **parameters: Any) -> UUID:
        found = self.client.read_deployment_by_name("poisonwatch-audit/my-audit-again")
        return self.client.create_flow_run_from_deployment(
            found.id, parameters={"config": str(self.audit), **parameters}
        ).id

    def states(self, run: UUID) -> list[Any]:
        return sorted(self.client.read_flow_run_states(run), key=lambda state: state.timestamp)

    def wait(self, run: UUID, *names: str) -> str:
        """The name of a run's state, once it is one of these."""

        def name() -> str:
            return str(self.client.read_flow_run(run).state.name)  # type: ignore[union-attr]

        wait_until(lambda: name() in names, lambda: self.describe(run))
        return name()

    def describe(self, run: UUID) -> str:
        """A run's states, those of all others and the worker's last words, for the error of a test."""
        mine = [f"{state.timestamp:%H:%M:%S} {state.name}" for state in self.states(run)]
        others = [f"{one.name} {one.state_name}" for one in self.client.read_flow_runs()]
        said = (self.audit.parent.parent / "worker.log").read_text().splitlines()[-30:]
        return "\n".join([str(mine), str(others), *said])


def wait_until(is_so: Callable[[], bool], describe: Callable[[], object]) -> None:
    """Wait as long as runs get on, however slow the machine is: until none of them has begun, ended
    or used a second of processor time for PATIENCE_S.
    """
    spent: dict[int, float] = {}
    moved_at = time.monotonic()
    while not is_so():
        now = measure_runs()
        if now.keys() != spent.keys() or sum(now.values()) >= sum(spent.values()) + 1:
            spent, moved_at = now, time.monotonic()
        assert time.monotonic() < moved_at + PATIENCE_S, describe()
        time.sleep(0.3)


def measure_runs() -> dict[int, float]:
    """The processor seconds of each process that runs a flow, by its id."""
    spent = {}
    for process in psutil.process_iter(["environ", "cpu_times"]):
        if "PREFECT__FLOW_RUN_ID" in (process.info["environ"] or {}):
            times = process.info["cpu_times"]
            spent[process.pid] = times.user + times.system
    return spent


def run(command: str, environment: dict[str, str], folder: Path) -> None:
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def service(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The README's commands, one by one; only addresses differ, and the intervals, so that a test
    need not wait an hour.
    """
    folder = tmp_path_factory.mktemp("service")
    export, start, ready, pool, deploy, worker = block("A server and workers")
    assert (
        export
        == "export PREFECT_API_URL=http://127.0.0.1:4200/api DO_NOT_TRACK=true PREFECT_SERVER_ANALYTICS_ENABLED=false"
    )
    shutil.copytree(DEPLOYMENTS, folder / "deployments")
    for file, changes in {
        "prefect.yaml": {
            "interval: 3600": "interval: 15",
            'RETRY_DELAY_SECONDS: "60"': 'RETRY_DELAY_SECONDS: "2"',
        },
        "automations.yaml": {
            "within: 30\n": "within: 15\n",
            "enabled: false": "enabled: true",
        },
    }.items():
        change(folder / "deployments" / file, changes)
    port = free_port()
    own = {
        "PREFECT_HOME": str(prefect_home(folder / "prefect")),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        # a server that is too busy says so with 503
        "PREFECT_CLIENT_MAX_RETRIES": "30",
        "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")
    } | own
    with http_receiver() as receiver:
        settings = {
            "detection": {"false_discovery_rate": 0.9},
            "alerts": [f"json://{receiver.address}/"],
        }
        settings["tracking"] = mlflow_store(folder / "tracking")
        audit = write_audit(folder / "my-audit", tiny_folder, **settings)
        other_audit = write_audit(folder / "other-audit", tiny_folder, **settings)
        server = Background(start.removesuffix(" &"), environment, folder)
        with server:
            for command in (ready, pool, deploy):
                run(command, environment, folder)
            with (
                temporary_settings(
                    {PREFECT_API_URL: own["PREFECT_API_URL"], PREFECT_CLIENT_MAX_RETRIES: 30}
                ),
                get_client(sync_client=True) as client,
            ):
                training = client.read_deployment_by_name(TRAINING)
                change(
                    folder / "deployments" / "automations.yaml",
                    {"00000000-0000-0000-0000-000000000000": str(training.id)},
                )
                run(
                    "prefect automation create --from-file deployments/automations.yaml",
                    environment,
                    folder,
                )
                # as a service manager does: a worker ends where its server is away for long
                again = f"while :; do {worker}; sleep 1; done >> worker.log 2>&1"
                with Background(again, environment, folder):

                    def restart() -> None:
                        server.stop()
                        server.start()
                        run(ready, environment, folder)

                    yield Service(client, audit, other_audit, receiver.received, restart)


def change(file: Path, changes: dict[str, str]) -> None:
    """Replace what is surely there."""
    text = file.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


class Background:
    """A command that runs as long as the block, and nothing that it started any longer."""

    def __init__(self, command: str, environment: dict[str, str], folder: Path) -> None:
        self._start = partial(
            subprocess.Popen,
            command,
            shell=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )

    def start(self) -> None:
        self._shell = self._start()

    def stop(self) -> None:
        shell = psutil.Process(self._shell.pid)
        for process in [*shell.children(recursive=True), shell]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._shell.wait()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def test_a_scheduled_run_happens_and_alerts_and_holds_training_back(service: Service) -> None:
    """Nobody starts it: with releases of SQLAlchemy that do not fit, the server never would, and
    would not say so.
    """

    def find_begun() -> list[Any]:
        return [run for run in service.runs() if run.auto_scheduled and run.start_time]

    def describe() -> list[str]:
        return [str(run.state) for run in service.runs()]

    wait_until(lambda: bool(find_begun()), describe)
    # the other tests start their own
    found = service.client.read_deployment_by_name("poisonwatch-audit/my-audit")
    service.client.pause_deployment(found.id)
    wait_until(lambda: find_begun()[0].state.is_completed() and bool(service.received), describe)
    done = find_begun()
    assert done[0].parameters == {"config": str(service.audit)}
    assert {"poisonwatch", "name:my-audit"} <= set(done[0].tags)
    # the event of the flags fires the automation
    wait_until(
        lambda: service.client.read_deployment_by_name(TRAINING).paused,
        lambda: "training was not held back",
    )
    assert not service.client.read_deployment_by_name("poisonwatch-audit/my-audit-again").paused


@slow
def test_overlapping_runs_wait_for_each_other(service: Service) -> None:
    """Two at once: the second is held back until the first has ended."""
    both = [service.start(again=True), service.start(again=True)]
    for one in both:
        service.wait(one, "Completed")
    spans = []
    for one in both:
        states = service.states(one)
        spans.append(
            (
                next(s.timestamp for s in states if s.is_running()),
                next(s.timestamp for s in states if s.is_final()),
            )
        )
    first, second = sorted(spans)
    assert first[1] <= second[0]


@slow
def test_a_run_that_fails_is_tried_again(service: Service) -> None:
    """The source is away when the run starts, and back at the second attempt."""
    rows = service.audit.parent / "rows.jsonl"
    rows.rename(rows.with_suffix(".away"))
    one = service.start(again=True)
    try:
        service.wait(one, "AwaitingRetry")
    finally:
        rows.with_suffix(".away").rename(rows)
    service.wait(one, "Completed")
    assert service.client.read_flow_run(one).run_count == 2


@slow
def test_what_died_holds_nothing_up_though_the_server_is_restarted(service: Service) -> None:
    """A run that died before it began, and a server that lost what it had in memory alone: the next
    runs all the same. One whose process is killed is started again by the automation of
    deployments/automations.yaml, one that never begins counts as crashed.
    """
    found = service.client.read_deployment_by_name("poisonwatch-audit/my-audit-again")

    def hand_over() -> UUID:
        """As a worker leaves a run that dies between its promise and the run's process."""
        return service.client.create_flow_run_from_deployment(found.id, state=Pending()).id

    hand_over()
    service.restart()
    # whoever has the lock keeps the run at work until it is killed, however long that takes
    folder = service.other_audit.parent
    with lock_file(folder / "poisonwatch.db", "tiny", wait=True, on_wait=lambda: None):
        one = service.start(again=True, config=str(service.other_audit))
        service.wait(one, "Running")
        states = {state.name: state.timestamp for state in service.states(one)}
        # on this machine, now: what takes thrice as long does not begin at all
        watch_for_stuck(service.client, 3 * (states["Running"] - states["Pending"]).total_seconds())
        stuck = hand_over()
        killed = [
            process
            for process in psutil.process_iter(["environ"])
            if (process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") == str(one)
        ]
        for process in killed:
            os.kill(process.pid, signal.SIGKILL)
    assert killed
    service.wait(one, "Completed")
    assert "Crashed" in [state.name for state in service.states(one)]
    service.wait(stuck, "Crashed")
    # the ledger has nothing half done
    assert list((folder / "runs").iterdir())
    assert not list((folder / "runs").glob("*.part"))


def watch_for_stuck(client: SyncPrefectClient, seconds: float) -> None:
    """The automation for runs that do not begin, with another patience than half an hour."""
    listed = yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text())["automations"]
    (mine,) = [one for one in listed if one["name"] == "poisonwatch-mark-stuck"]
    assert mine["trigger"]["within"] == 1800
    mine["trigger"]["within"] = max(10, round(seconds))
    client.request("POST", "/automations/", json=mine).raise_for_status()
