"""Events on a real server: what they tell, and what they do not."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audits import write_audit
from ledgers import append
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect_servers import prefect_server

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit
from poisonwatch.integrations.prefect.events import build_events, emit_events
from poisonwatch.ledger.history import list_past_audits, list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import PREFECT

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


def emitted(client: SyncPrefectClient, name: str, at_least: int) -> list[dict[str, Any]]:
    """The server's events about an audit, oldest first; they are stored a moment after they are
    taken.
    """
    wanted = {
        "filter": {
            "event": {"prefix": ["poisonwatch."]},
            "resource": {"id": [f"poisonwatch.audit.{name}"]},
        }
    }
    for _ in range(600):
        found = client.request("POST", "/events/filter", json=wanted).json()["events"]
        if len(found) >= at_least:
            break
        time.sleep(0.1)
    return sorted(found, key=lambda event: str(event["occurred"]))


def test_events_tell_what_happened_and_hold_no_row_text(
    client: SyncPrefectClient, tiny_folder: Path, tmp_path: Path
) -> None:
    """Completed, flagged and rejected, with ids; emitted once more, they are the same events."""
    config = write_audit(tmp_path, tiny_folder, name="telling", **LAX)
    append(tmp_path / "rows.jsonl", [{"prompt": "only a prompt"}])
    outcome = audit(str(config), str(tmp_path / "run"))
    with Ledger.at(load_config(config).state) as ledger:
        (past,) = list_past_audits(ledger)
        assert list_pending_audits(ledger, "telling", PREFECT) == []
    flags = [json.loads(line) for line in (past.run_dir / "flags.jsonl").read_text().splitlines()]
    told = list(build_events(load_config(config), past, flags))
    found = {event["event"]: event for event in emitted(client, "telling", len(told))}
    assert {
        "poisonwatch.audit.completed",
        "poisonwatch.poison.flagged",
        "poisonwatch.data.rejected",
    } <= set(found)
    payload = found["poisonwatch.poison.flagged"]["payload"]
    assert payload["audit_id"] == outcome.summary["audit_id"]
    assert payload["parts_failed"] == 0
    assert payload["flagged"] == len(outcome.detection.flags)
    assert payload["example_ids"] == [flag.example.id for flag in outcome.detection.flags]
    assert payload["mlflow_run_id"] == outcome.summary["mlflow_run_id"]
    assert found["poisonwatch.data.rejected"]["payload"]["places"] == [
        {"source": "rows.jsonl", "position": 43}
    ]
    related = [
        resource["prefect.resource.id"]
        for resource in found["poisonwatch.audit.completed"]["related"]
    ]
    assert related == [f"prefect.flow-run.{payload['flow_run_id']}"]
    assert not [
        flag for flag in outcome.detection.flags if flag.example.response in json.dumps(found)
    ]
    emit_events(told)
    assert len(emitted(client, "telling", len(told))) == len(told)


def test_a_sentinel_that_a_confirmed_group_moves_is_an_event(
    client: SyncPrefectClient, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each sentinel, with the losses before and after; the sentinel is a related resource."""
    # Of a model of random weights, nothing moves an answer far.
    monkeypatch.setattr("poisonwatch.detection.effect_size.LEAST_EFFECT", -9.0)
    config = write_audit(tmp_path, tiny_folder, name="moving", **LAX)
    audit(str(config), str(tmp_path / "run"))
    groups = [
        json.loads(line) for line in (tmp_path / "run" / "evidence.jsonl").read_text().splitlines()
    ]
    moved = {
        effect["sentinel"]
        for group in groups
        if (group["confirmation"] or {}).get("confirmed")
        for effect in group["confirmation"]["effects"]
    }
    found = [
        event
        for event in emitted(client, "moving", 2 + len(moved))
        if event["event"] == "poisonwatch.sentinel.moved"
    ]
    assert moved
    assert {event["payload"]["sentinel_id"] for event in found} == moved
    for event in found:
        assert {"before", "after"} <= set(next(iter(event["payload"]["losses"].values())))
        assert f"poisonwatch.sentinel.moving.{event['payload']['sentinel_id']}" in [
            r["prefect.resource.id"] for r in event["related"]
        ]
