"""What `watch` has on a Prefect server, on one that asks who we are, behind a proxy that nobody
answers at: what it does where the server dies, is created anew, or serves somebody else.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from audits import write_audit
from paths import ROOT
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)
from prefect.states import Cancelling, Running
from pydantic import SecretStr
from servers import free_port
from slow_tests import slow
from waiting_flow import wait_for_ever

from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.audit import audit
from poisonwatch.flows.late_runs import cancel_late_runs
from poisonwatch.flows.own_server import OwnServer, is_healthy, open_server
from poisonwatch.flows.proxies import spare_loopback
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.run_process import RunProcess, is_cancelling, start_due_run
from poisonwatch.flows.watch import make_deployment, make_interval, watch
from poisonwatch.flows.watched_server import WatchedServer

HOUR = timedelta(hours=1)
LOGIN = "ann:hunter2"
PATIENCE_S = 300


@dataclass(frozen=True)
class Prefect:
    """A server of ours, as `open_server` starts it."""

    client: SyncPrefectClient
    api: str
    own: OwnServer
    home: Path
    config: Path

    @property
    def record(self) -> Path:
        return self.home / f"poisonwatch-server-{self.own.port}.json"

    def watch(self, name: str, flow: Flow[Any, Any] = audit, config: Path | None = None) -> Any:
        """A watch's view of the server, for an audit of a name."""
        settings = load_config(self.config).model_copy(update={"name": name})
        made = make_deployment(flow, config or self.config, settings, make_interval(HOUR))
        return WatchedServer(self.client, self.api, self.own, [made], Reporter())

    def states(self, deployment: UUID) -> list[State]:
        runs = self.client.read_flow_runs()
        return [run.state for run in runs if run.deployment_id == deployment and run.state]


@pytest.fixture(scope="module")
def prefect(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("watched")
    config = write_audit(folder / "audit", tiny_folder, tracking=f"sqlite:///{folder}/mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("PREFECT_") or name.lower() == "no_proxy":
                patch.delenv(name)
        own = {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
            "HTTP_PROXY": "http://127.0.0.1:9",
            # set below, and unset at the end
            "no_proxy": "",
            "NO_PROXY": "example.org",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        }
        for name, value in own.items():
            patch.setenv(name, value)
        spare_loopback()
        settings = {
            PREFECT_HOME: folder / "prefect",
            PREFECT_SERVER_API_AUTH_STRING: SecretStr(LOGIN),
            PREFECT_API_URL: None,
            PREFECT_CLIENT_MAX_RETRIES: 1,
        }
        with temporary_settings(settings), open_server(free_port(), Reporter()) as (api, server):
            assert server is not None
            with get_client(sync_client=True) as client:
                yield Prefect(client, api, server, folder / "prefect", config)
        assert not is_healthy(api)
        assert not list((folder / "prefect").glob("poisonwatch-*"))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_no_proxy_is_asked_for_this_machine(prefect: Prefect) -> None:
    """With HTTP_PROXY alone, the server of the fixture would not have been reached; what was
    excepted stays so.
    """
    assert os.environ["HTTP_PROXY"]
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"


def test_a_server_that_was_killed_and_created_anew_is_registered_with_again(
    prefect: Prefect, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours is started again; without its database it knows nothing, and is told. Each is said
    once.
    """
    watched = prefect.watch("anew")
    watched.register()
    before = list(watched.ids)
    assert watched.is_in_order()
    for entry in json.loads(prefect.record.read_text())["server"]:
        psutil.Process(entry["pid"]).kill()
    for file in prefect.home.glob("prefect.db*"):
        file.unlink()
    assert not watched.is_in_order()
    assert watched.is_in_order()
    assert watched.is_in_order()
    assert watched.ids != before
    assert watched.find_flow(before[0]) == audit.name
    assert watched.find_flow(watched.ids[0]) == audit.name
    assert len(prefect.states(watched.ids[0])) == 1
    said = capsys.readouterr().err
    for words in (
        "no Prefect server answers",
        "has ended: starting it again",
        "does not know anew any more: registering it again",
        "answers again",
    ):
        assert said.count(words) == 1, said


def test_the_server_of_a_killed_watch_is_taken_over(
    prefect: Prefect, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of a watch that lives is not: there the port is taken."""
    record = json.loads(prefect.record.read_text())
    next_one = OwnServer(prefect.own.port, Reporter())
    with pytest.raises(InputError, match="something answers on port"):
        next_one.open()
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    record["watch"] = {"pid": dead.pid, "started": time.time()}
    prefect.record.write_text(json.dumps(record))
    next_one.open()
    assert "taking it over" in capsys.readouterr().err
    assert json.loads(prefect.record.read_text())["server"] == record["server"]
    assert json.loads(prefect.record.read_text())["watch"]["pid"] == os.getpid()


def test_two_audits_of_one_name_are_told_apart(
    prefect: Prefect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the other is served, the second is refused; where it is not, such as after a folder was
    moved, the second goes on, and the first would end.
    """
    first = prefect.watch("twice")
    first.register()
    second = prefect.watch("twice", config=tmp_path / "audit.yaml")
    second.register()
    assert f"twice was the audit of {prefect.config}, where nobody" in capsys.readouterr().err
    with pytest.raises(OperationError, match=r"audit\.yaml now.*another `name`"):
        first.is_in_order()
    # whoever asks for runs serves the deployment
    prefect.client.get_scheduled_flow_runs_for_deployments(second.ids)

    def is_served() -> bool:
        answer = prefect.client.request("GET", f"/deployments/{second.ids[0]}")  # type: ignore[arg-type]
        return bool(answer.json()["status"] == "READY")

    wait_until(is_served)
    with pytest.raises(InputError, match="another `name`"):
        first.register()
    # the same audit may be watched by two: a rolling restart
    prefect.watch("twice", config=tmp_path / "audit.yaml").register()


def test_what_a_work_pool_serves_is_left_to_it(prefect: Prefect) -> None:
    """Its workers would get no more runs."""
    prefect.client.request(
        "POST", "/work_pools/", json={"name": "pool", "type": "process"}
    ).raise_for_status()
    watched = prefect.watch("pooled")
    made: RunnerDeployment = watched._deployments[0]
    made.model_copy(update={"work_pool_name": "pool"}).apply()
    with pytest.raises(InputError, match=r"work pool pool .*prefect deployment delete"):
        watched.register()


def test_a_pause_is_said_once_and_so_is_its_end(
    prefect: Prefect, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a person's, and stays until somebody resumes it, or starts to watch anew."""
    watched = prefect.watch("paused")
    watched.register()
    prefect.client.pause_deployment(watched.ids[0])
    assert watched.is_in_order()
    assert watched.is_in_order()
    assert capsys.readouterr().err.count("is paused in Prefect") == 1
    prefect.client.resume_deployment(watched.ids[0])
    assert watched.is_in_order()
    assert watched.is_in_order()
    assert capsys.readouterr().err.count("is resumed in Prefect") == 1
    prefect.client.pause_deployment(watched.ids[0])
    prefect.watch("paused").register()
    assert "it goes on from here" in capsys.readouterr().err
    assert not prefect.client.read_deployment(watched.ids[0]).paused


def test_late_runs_collapse_into_one(prefect: Prefect) -> None:
    """Of a night in which nobody watched one audit is left; what a person started is not touched."""
    watched = prefect.watch("late")
    watched.register()
    (id,) = watched.ids
    by_hand = prefect.client.create_flow_run_from_deployment(id).id
    now = datetime.now(UTC)
    prefect.client.request(
        "POST",
        f"/deployments/{id}/schedule",  # type: ignore[arg-type]
        json={"start_time": f"{now - 13 * HOUR}", "end_time": f"{now}", "min_runs": 13},
    ).raise_for_status()
    due = prefect.client.get_scheduled_flow_runs_for_deployments([id], scheduled_before=now)
    late = [run for run in due if run.auto_scheduled]
    assert len(late) >= 12
    kept = late[0].id
    assert cancel_late_runs(prefect.client, id, "it is covered", but=kept) == len(late) - 1
    left = prefect.client.get_scheduled_flow_runs_for_deployments([id], scheduled_before=now)
    assert {kept, by_hand} <= {run.id for run in left}
    assert len(left) == 3  # and the one with which watching began
    cancelled = [state for state in prefect.states(id) if state.is_cancelled()]
    assert {state.message for state in cancelled} == {"not run, since it is covered"}
    # a watch that begins has an audit at once, and needs none of them
    prefect.watch("late").register()
    left = prefect.client.get_scheduled_flow_runs_for_deployments([id], scheduled_before=now)
    assert not any(run.auto_scheduled for run in left)


def start_waiting(prefect: Prefect, name: str) -> RunProcess:
    made = wait_for_ever.to_deployment(name=name, entrypoint_type="module_path")  # type: ignore[attr-defined]
    id = UUID(str(made.apply()))
    prefect.client.create_flow_run_from_deployment(id)
    ours = start_due_run(prefect.client, [id])
    assert ours is not None

    def is_running() -> bool:
        assert not ours.wait(0)
        state = prefect.client.read_flow_run(ours.id).state
        return state is not None and state.is_running()

    wait_until(is_running)
    return ours


def test_a_run_that_was_killed_is_told_so_and_no_other(prefect: Prefect) -> None:
    """Another's run of the same deployment goes on."""
    ours = start_waiting(prefect, "killed")
    other = prefect.client.create_flow_run_from_deployment(ours.deployment, state=Running()).id
    (process,) = [child for child in psutil.Process().children() if str(ours.id) in child.cmdline()]
    process.kill()
    wait_until(lambda: ours.wait(0))
    state = ours.settle(prefect.client)
    assert state is not None
    assert state.is_crashed()
    assert "SIGKILL" in str(prefect.client.read_flow_run(ours.id).state.message)  # type: ignore[union-attr]
    assert prefect.client.read_flow_run(other).state.is_running()  # type: ignore[union-attr]


def test_a_run_that_a_lost_machine_left_is_no_more_at_work(prefect: Prefect) -> None:
    """On a server of our own, every run is a process of this machine."""
    watched = prefect.watch("lost")
    watched.register()
    lost = prefect.client.create_flow_run_from_deployment(watched.ids[0], state=Running()).id
    prefect.watch("lost").register()
    state = prefect.client.read_flow_run(lost).state
    assert state is not None
    assert state.is_crashed()


def test_a_run_that_a_person_cancels_is_ended(prefect: Prefect) -> None:
    """And counts as cancelled, and not as crashed."""
    ours = start_waiting(prefect, "cancelled")
    assert not is_cancelling(prefect.client, ours.id)
    prefect.client.set_flow_run_state(ours.id, Cancelling())
    assert is_cancelling(prefect.client, ours.id)
    ours.cancel(prefect.client)
    assert ours.wait(0)
    state = ours.settle(prefect.client)
    assert state is not None
    assert state.is_cancelled()


def test_a_watch_that_stops_leaves_the_schedule_and_the_runs_of_others(
    prefect: Prefect, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM ends it calmly; only the run whose process was its own has crashed. Another that
    serves the deployment, such as the next of a rolling restart, goes on.
    """
    client = prefect.client
    found: list[UUID] = []

    def stop() -> None:
        wait_until(lambda: "watching stopped:" in read())
        id = client.read_deployment_by_name("poisonwatch-audit/stopped").id
        found.append(client.create_flow_run_from_deployment(id, state=Running()).id)
        wait_until(lambda: any(state.is_pending() for state in prefect.states(id)))
        os.kill(os.getpid(), signal.SIGTERM)

    said: list[str] = []

    def read() -> str:
        said.append(capsys.readouterr().err)
        return "".join(said)

    settings = load_config(prefect.config).model_copy(update={"name": "stopped"})
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stopping = threading.Thread(target=stop)
    stopping.start()
    try:
        watch(prefect.config, settings, make_interval(HOUR), None, 4200, Reporter())
    finally:
        stopping.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "stopped watching" in read()
    there = client.read_deployment_by_name("poisonwatch-audit/stopped")
    assert not there.paused
    assert [schedule.active for schedule in there.schedules] == [True]
    (other,) = found
    runs = [run for run in client.read_flow_runs() if run.deployment_id == there.id]
    ended = {run.id: run.state for run in runs if run.state and not run.state.is_scheduled()}
    assert ended.pop(other).is_running()
    (ours,) = ended.values()
    assert ours.is_crashed()
    assert ours.message == "`poisonwatch watch` was stopped"


def test_a_server_that_asks_who_we_are_is_one_line(
    prefect: Prefect, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the setting, where watching begins as where it goes on; no secret is in it."""
    settings = load_config(prefect.config)
    wrong = {PREFECT_API_AUTH_STRING: SecretStr("ann:wrong"), PREFECT_API_URL: prefect.api}
    with temporary_settings(wrong):
        with pytest.raises(OperationError, match="set PREFECT_API_AUTH_STRING") as refused:
            watch(prefect.config, settings, make_interval(HOUR), None, 4200, Reporter())
        assert "wrong" not in str(refused.value)
        with get_client(sync_client=True) as client:
            watched = prefect.watch("refused")
            watched.ids = [UUID(int=0)]
            watched._client = client
            assert not watched.is_in_order()
    assert "set PREFECT_API_AUTH_STRING" in capsys.readouterr().err


@slow
def test_an_audit_does_without_a_server_that_asks_who_we_are(
    prefect: Prefect, tiny_folder: Path, tmp_path: Path
) -> None:
    """It comes to its results, and says in one line which setting is missing."""
    config = write_audit(tmp_path, tiny_folder, tracking=f"sqlite:///{tmp_path}/mlflow.db")
    environment = {**os.environ, "PREFECT_API_URL": prefect.api}
    environment.pop("PREFECT_API_AUTH_STRING", None)
    command = [sys.executable, "-m", "poisonwatch.flows.cli", "audit", str(config), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 3), done.stderr
    assert "set PREFECT_API_AUTH_STRING" in done.stderr
    assert "Traceback" not in done.stderr
