from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource, Resource

from poisonwatch.atomic import read_jsonl
from poisonwatch.config import AuditConfig
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import PastAudit
from poisonwatch.reports.links import locate_report, make_dashboard_url, make_mlflow_run_url

MOST_EVENT_IDS = 100  # example ids in one event


def build_events(
    config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]]
) -> Iterator[Event]:
    """The events of one audit. Their ids follow from the audit's: emitted again after a crash, they
    are the same events.
    """
    counts, run_id = past.summary["counts"], past.summary["mlflow_run_id"]
    severity = max((flag["severity"] for flag in flags), key=SEVERITIES.index, default=None)
    payload = {
        "audit_id": past.audit_id,
        "name": past.name,
        "counts": counts,
        "severity": severity,
        "run_dir": str(past.run_dir),
        "report": str(locate_report(past.run_dir)),
        "mlflow_run_id": run_id,
        "mlflow_url": make_mlflow_run_url(config, past.summary.get("mlflow_experiment_id"), run_id),
        "dashboard_url": make_dashboard_url(config, past.audit_id),
        "flow_run_id": past.flow_run,
    }
    yield _build_event(past, "audit.completed", payload)
    if counts["flagged"]:
        ids = [flag["example_id"] for flag in flags[:MOST_EVENT_IDS]]
        yield _build_event(
            past, "poison.flagged", {**payload, "flagged": counts["flagged"], "example_ids": ids}
        )
    for sentinel, moved in _find_moved_sentinels(past.run_dir / "evidence.jsonl").items():
        yield _build_event(
            past, "sentinel.moved", {**payload, "sentinel_id": sentinel, **moved}, sentinel
        )
    if counts["rejected"]:
        rejected = (
            list(read_jsonl(past.run_dir / "rejected.jsonl")) if past.run_dir.is_dir() else []
        )
        places = [
            {"source": row["source"], "position": row["position"]}
            for row in rejected[:MOST_EVENT_IDS]
        ]
        yield _build_event(
            past, "data.rejected", {**payload, "rejected": counts["rejected"], "places": places}
        )


def _find_moved_sentinels(path: Path) -> dict[str, dict[str, Any]]:
    """By sentinel, the losses before and after and the rows of the largest group that steering
    confirmed to move it.
    """
    found: dict[str, dict[str, Any]] = {}
    for group in read_jsonl(path) if path.exists() else ():
        confirmation = group["confirmation"]
        if confirmation is None or not confirmation["confirmed"]:
            continue
        for effect in confirmation["effects"]:
            losses = {
                kind: effect[kind]
                for kind in ("forbidden", "reference")
                if effect[kind] is not None
            }
            found.setdefault(
                effect["sentinel"],
                {"losses": losses, "example_ids": group["example_ids"][:MOST_EVENT_IDS]},
            )
    return found


def _build_event(past: PastAudit, kind: str, payload: dict[str, Any], sentinel: str = "") -> Event:
    name = f"poisonwatch.{kind}"
    related = (
        [
            {
                "prefect.resource.id": f"prefect.flow-run.{past.flow_run}",
                "prefect.resource.role": "flow-run",
            }
        ]
        if past.flow_run
        else []
    )
    if sentinel:
        related.append(
            {
                "prefect.resource.id": f"poisonwatch.sentinel.{past.name}.{sentinel}",
                "prefect.resource.role": "sentinel",
            }
        )
    return Event(
        occurred=datetime.now(UTC),
        event=name,
        resource=Resource(
            {
                "prefect.resource.id": f"poisonwatch.audit.{past.name}",
                "prefect.resource.name": past.name,
            }
        ),
        related=[RelatedResource(resource) for resource in related],
        payload=payload,
        id=_make_event_id(past.audit_id, name, sentinel),
    )


def _make_event_id(*parts: str) -> UUID:
    return uuid5(NAMESPACE_URL, "/".join(parts))


def emit_events(events: list[Event]) -> None:
    """Send the events and see that the server takes them: the SDK's own `emit_event` loses them,
    silently, where it is down.
    """
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])
