"""The events of an audit, which automations can act on.

    poisonwatch.audit.completed     one an audit
    poisonwatch.poison.flagged      where rows were flagged
    poisonwatch.sentinel.moved      one a sentinel that a confirmed group of rows moves
    poisonwatch.data.rejected       where rows failed validation

Row text stays out: automations write what they get into messages, and row text is hostile.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource, Resource

from poisonwatch.atomic import read_jsonl
from poisonwatch.config import AuditConfig
from poisonwatch.failures import tell_failures
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.records import ChainHead
from poisonwatch.reports.links import locate_report, make_dashboard_url, make_mlflow_run_url

# Of example ids, or places of rejected rows, in one event: a server refuses events that are large,
# and the run directory has them all.
MOST_EVENT_IDS = 100


def build_events(
    config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]], head: ChainHead | None = None
) -> Iterator[Event]:
    """The events of one audit, with where the chain of records ends now. Their ids follow from the
    audit's: emitted again after a crash, they are the same events.
    """
    counts = past.summary["counts"]
    shared = _build_payload(config, past, flags)
    if head is not None:
        shared["chain"] = str(head)
    yield _build_event(past, "audit.completed", shared)
    if counts["flagged"]:
        ids = [flag["example_id"] for flag in flags[:MOST_EVENT_IDS]]
        flagged = {"flagged": counts["flagged"], "example_ids": ids}
        yield _build_event(past, "poison.flagged", {**shared, **flagged})
    for sentinel, moved in _find_moved_sentinels(past.run_dir / "evidence.jsonl").items():
        payload = {**shared, "sentinel_id": sentinel, **moved}
        yield _build_event(past, "sentinel.moved", payload, sentinel=sentinel)
    if counts["rejected"]:
        rejected = {"rejected": counts["rejected"], "places": _list_rejected_places(past.run_dir)}
        yield _build_event(past, "data.rejected", {**shared, **rejected})


def _build_payload(
    config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]]
) -> dict[str, Any]:
    """What every event of an audit holds."""
    run_id = past.summary["mlflow_run_id"]
    experiment_id = past.summary.get("mlflow_experiment_id")
    severities = [flag["severity"] for flag in flags]
    run_dir, report = str(past.run_dir), str(locate_report(past.run_dir))
    return {
        "audit_id": past.audit_id,
        "name": past.name,
        "counts": past.summary["counts"],
        "parts_failed": len(tell_failures(past.summary)),
        "severity": max(severities, key=SEVERITIES.index, default=None),
        "run_dir": None if past.nothing_new else run_dir,
        "report": None if past.nothing_new else report,
        "mlflow_run_id": run_id,
        "mlflow_url": make_mlflow_run_url(config, experiment_id, run_id),
        "dashboard_url": make_dashboard_url(config, past.audit_id),
        "flow_run_id": past.flow_run,
    }


def _list_rejected_places(run_dir: Path) -> list[dict[str, Any]]:
    """Source and position of the first rejected rows; none where the run directory is on another
    machine.
    """
    places: list[dict[str, Any]] = []
    if not run_dir.is_dir():
        return places
    for row in read_jsonl(run_dir / "rejected.jsonl"):
        if len(places) == MOST_EVENT_IDS:
            break
        places.append({"source": row["source"], "position": row["position"]})
    return places


def _find_moved_sentinels(path: Path) -> dict[str, dict[str, Any]]:
    """By sentinel, the losses before and after and the rows of the largest group that steering
    confirmed to move it.
    """
    found: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return found
    for group in read_jsonl(path):
        confirmation = group["confirmation"]
        if confirmation is None or not confirmation["confirmed"]:
            continue
        # Groups stand in the file largest first: the first that moves a sentinel is the one.
        for effect in confirmation["effects"]:
            moved = {
                "losses": _select_losses(effect),
                "example_ids": group["example_ids"][:MOST_EVENT_IDS],
            }
            found.setdefault(effect["sentinel"], moved)
    return found


def _select_losses(effect: dict[str, Any]) -> dict[str, Any]:
    """The losses that were measured: some sentinels have a forbidden answer alone."""
    losses = {}
    for kind in ("forbidden", "reference"):
        if effect[kind] is not None:
            losses[kind] = effect[kind]
    return losses


def _build_event(past: PastAudit, kind: str, payload: dict[str, Any], sentinel: str = "") -> Event:
    name = f"poisonwatch.{kind}"
    audit = {
        "prefect.resource.id": f"poisonwatch.audit.{past.name}",
        "prefect.resource.name": past.name,
    }
    related: list[RelatedResource] = []
    if past.flow_run:
        related.append(_make_related("flow-run", f"prefect.flow-run.{past.flow_run}"))
    if sentinel:
        related.append(_make_related("sentinel", f"poisonwatch.sentinel.{past.name}.{sentinel}"))
    return Event(
        occurred=datetime.now(UTC),
        event=name,
        resource=Resource(audit),
        related=related,
        payload=payload,
        id=_make_event_id(past.audit_id, name, sentinel),
    )


def _make_related(role: str, id: str) -> RelatedResource:
    return RelatedResource({"prefect.resource.id": id, "prefect.resource.role": role})


def _make_event_id(*parts: str) -> UUID:
    return uuid5(NAMESPACE_URL, "/".join(parts))


def emit_events(events: list[Event]) -> None:
    """Send the events and see that the server takes them."""
    # The SDK's own `emit_event` loses them, silently, where the server is down.
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])
