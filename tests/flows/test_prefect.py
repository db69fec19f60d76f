"""The audit as a Prefect flow on a real server: retries, people's answers."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from audits import benign, write_audit
from ledgers import append
from patience import PATIENCE_S
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import resume_flow_run
from prefect_servers import prefect_server

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.ledger.batches import count_by_status
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger

LAX = {"detection": {"false_discovery_rate": 0.9}}  # so that something is flagged on random weights


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A real Prefect server on its own database."""
    with prefect_server():
        yield


@pytest.fixture
def client(server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def run_of(client: SyncPrefectClient, config: Path, deployment: UUID | None = None) -> UUID:
    """A flow run that was created and not started; of a deployment, if one is named."""
    parameters = {"config": str(config)}
    if deployment is None:
        return client.create_flow_run(audit, parameters=parameters).id
    return client.create_flow_run_from_deployment(deployment, parameters=parameters).id


def start(client: SyncPrefectClient, flow_run: UUID) -> Any:
    """Run a flow run in this process, as a worker's process would; its state afterwards."""
    try:
        return run_flow(audit, flow_run=client.read_flow_run(flow_run), return_type="state")
    except Pause as pause:  # where a process would end
        return pause.state


def verdicts(config: Path) -> list[tuple[str, str, str]]:
    with Ledger.at(load_config(config).state) as ledger:
        return [(made.verdict, made.note, made.author) for made in read_decisions(ledger)]


def test_a_flow_run_that_is_retried_after_its_audit_does_not_audit_again(
    client: SyncPrefectClient, tiny_folder: Path, tmp_path: Path
) -> None:
    """The ledger knows the flow run: one audit, the same run directory; what the first attempt
    could not tell is told.
    """
    config = write_audit(tmp_path, tiny_folder, tracking="none")
    flow_run = run_of(client, config)
    state = start(client, flow_run)
    assert state.is_completed()
    with Ledger.at(load_config(config).state) as ledger:
        (first,) = list_past_audits(ledger)
    assert first.flow_run == str(flow_run)
    append(tmp_path / "rows.jsonl", benign(3, start=500))
    client.set_flow_run_state(
        flow_run, type(state)(type="SCHEDULED", name="AwaitingRetry"), force=True
    )
    again: AuditOutcome = start(client, flow_run).result()
    assert again.run_dir == first.run_dir
    with Ledger.at(load_config(config).state) as ledger:
        assert len(list_past_audits(ledger)) == 1


def test_a_run_of_a_deployment_is_suspended_until_somebody_answers(
    client: SyncPrefectClient, tiny_folder: Path, tmp_path: Path
) -> None:
    """Its process ends; the answer is typed; started again, the run takes the answer into the chain
    and does not audit again.
    """
    config = write_audit(tmp_path, tiny_folder, on_flag="pause", tracking="none", **LAX)
    deployment = client.create_deployment(client.create_flow(audit), name="paused")
    flow_run = run_of(client, config, deployment)
    state = start(client, flow_run)
    assert state.is_paused()
    with pytest.raises(Exception, match="bogus"):
        resume_flow_run(flow_run, run_input={"verdict": "bogus"})
    with Ledger.at(load_config(config).state) as ledger:
        (past,) = list_past_audits(ledger)
        assert verdicts(config) == []
    flagged = [
        json.loads(line)["example_id"]
        for line in (past.run_dir / "flags.jsonl").read_text().splitlines()
    ]
    resume_flow_run(
        flow_run,
        run_input={
            "verdict": "poison",
            "note": "planted",
            "reviewer": "ann",
            "rows": [flagged[0][:12]],
        },
    )
    assert start(client, flow_run).is_completed()
    assert verdicts(config) == [("poison", "planted", "ann")]
    with Ledger.at(load_config(config).state) as ledger:
        assert len(list_past_audits(ledger)) == 1


def test_a_run_without_a_deployment_waits_in_its_process(
    client: SyncPrefectClient, tiny_folder: Path, tmp_path: Path
) -> None:
    """An answer about no row in particular is about all flagged rows."""
    config = write_audit(tmp_path, tiny_folder, on_flag="pause", tracking="none", **LAX)
    flow_run = run_of(client, config)
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(start(client, flow_run)))
    waiting.start()
    while waiting.is_alive() and not client.read_flow_run(flow_run).state.is_paused():
        time.sleep(0.2)
    resume_flow_run(
        flow_run, run_input={"verdict": "benign", "note": "", "reviewer": "", "rows": []}
    )
    waiting.join(PATIENCE_S)
    outcome: AuditOutcome = done[0].result()
    assert [verdict for verdict, _, author in verdicts(config) if author == "prefect"] == [
        "benign"
    ] * len(outcome.detection.flags)


def test_nobody_s_answer_leaves_the_rows_in_quarantine(
    client: SyncPrefectClient, tiny_folder: Path, tmp_path: Path
) -> None:
    """After `pause_hours` the run goes on, and nothing was decided."""
    config = write_audit(
        tmp_path, tiny_folder, on_flag="pause", tracking="none", pause_hours=1 / 3600, **LAX
    )
    outcome = audit(str(config), str(tmp_path / "run"))
    assert outcome.detection.flags
    assert verdicts(config) == []
    with Ledger.at(load_config(config).state) as ledger:
        assert count_by_status(ledger, "tiny")["flagged"] == len(outcome.detection.flags)
