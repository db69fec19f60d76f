"""A flow run in a process of its own, as `watch` starts one after the other.

Prefect's own runner would do as well, but that it stops for good where its server is away for a
minute, pauses the schedule when it stops, and ends the runs of others with its own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from typing import BinaryIO
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import FlowRunResponse, SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Pending

GRACE_S = 30  # in which a run that is to end tells Prefect so
TAIL = 2_000  # bytes of what a process said last


class RunProcess:
    """A flow run at work since `began`, or one that was, and `took` so many seconds."""

    def __init__(self, run: FlowRunResponse) -> None:
        self.id = run.id
        self.deployment = run.deployment_id
        self.began = datetime.now().astimezone()
        self._clock = time.monotonic()
        self.took = 0.0
        self._tail = ""
        # a file, since a pipe that nobody reads would hold the process up
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as this is)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect.engine", str(run.id)],
            env={**os.environ, "PREFECT__FLOW_RUN_ID": str(run.id)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            # Ctrl-C is for us, who end it in order
            start_new_session=True,
        )

    def wait(self, seconds: float) -> bool:
        """Whether the process ends within some seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._process.returncode is None:
            return False
        if not self._said.closed:
            self.took = time.monotonic() - self._clock
            self._tail = _read_last_line(self._said)
            self._said.close()
        return True

    def end(self) -> None:
        """Have the process end: it says so to Prefect, and is killed where that takes long."""
        self._signal(signal.SIGTERM)
        self.wait(GRACE_S)
        # what it started, too, such as the workers of Ray
        self._signal(signal.SIGKILL, group=True)
        self.wait(GRACE_S)

    def _signal(self, number: int, group: bool = False) -> None:
        send = os.killpg if group else os.kill
        # its id is its group's, as it leads a session
        with contextlib.suppress(ProcessLookupError):
            send(self._process.pid, number)

    def settle(self, client: SyncPrefectClient, why: str | None = None) -> State | None:
        """The state of the run, whose process has ended: one that says that it is at work is set
        right. None where the server does not know the run any more.
        """
        state = _read_state(client, self.id)
        if state is None or state.type not in _AT_WORK:
            return state
        ended: State = Crashed(message=why or self._describe_end())
        client.set_flow_run_state(self.id, ended, force=True)
        return ended

    def cancel(self, client: SyncPrefectClient) -> None:
        """End the run, for a person who asked for it in Prefect."""
        self.end()
        # over what the process itself said of its end: that it was aborted
        client.set_flow_run_state(self.id, Cancelled(message="cancelled in Prefect"), force=True)

    def _describe_end(self) -> str:
        code = self._process.returncode
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}: {self._tail or 'it said nothing'}"


def _read_last_line(file: BinaryIO) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - TAIL))
    said = file.read().decode("utf-8", errors="replace")
    return said.strip().rpartition("\n")[2]


_AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def is_cancelling(client: SyncPrefectClient, run: UUID) -> bool:
    """Whether somebody asked in Prefect that a run be cancelled, or took it away."""
    state = _read_state(client, run)
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _read_state(client: SyncPrefectClient, run: UUID) -> State | None:
    try:
        return client.read_flow_run(run).state
    except ObjectNotFound:
        # deleted, or the server was created anew
        return None


def settle_lost_runs(client: SyncPrefectClient, deployments: list[UUID]) -> None:
    """Say of runs that count as at work and have no process on this machine that they crashed: they
    were at work when it, or whoever watched, went down. For a server that this machine alone uses.
    """
    at_work = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING", "RUNNING"]}}})
    ours = DeploymentFilter(id=DeploymentFilterId(any_=deployments))
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    for run in client.read_flow_runs(flow_run_filter=at_work, deployment_filter=ours):
        if not any(str(run.id) in line for line in lines):
            lost: State = Crashed(
                message="its process is gone: the machine, or its watch, went down"
            )
            client.set_flow_run_state(run.id, lost, force=True)


def start_due_run(client: SyncPrefectClient, deployments: list[UUID]) -> RunProcess | None:
    """Start the run of these deployments that has been due for longest, if any is due; one that
    another process begins meanwhile is left to it.
    """
    now = datetime.now().astimezone()
    due = client.get_scheduled_flow_runs_for_deployments(deployments, scheduled_before=now)
    for run in sorted(due, key=lambda run: run.next_scheduled_start_time or now):
        answer: OrchestrationResult[None] = client.set_flow_run_state(run.id, Pending())
        if answer.status == SetStateStatus.ACCEPT:
            return RunProcess(run)
    return None
