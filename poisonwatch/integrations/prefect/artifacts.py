"""What the Prefect UI shows of an audit, and the events that automations can act on.

    poisonwatch.audit.completed     one an audit
    poisonwatch.poison.flagged      where rows were flagged
    poisonwatch.sentinel.moved      one a sentinel that a confirmed group of rows moves
    poisonwatch.data.rejected       where rows failed validation

Row text stays out of both: the UI renders Markdown, automations write what they get into messages, and row text is hostile.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource, Resource
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import PREFECT, PastAudit, debtors, settle
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.reports.links import dashboard_url, mlflow_run_url, report_of
from poisonwatch.run_directory.layout import read_lines
from poisonwatch.tasks import OWED
from poisonwatch.text.display import first_line

MOST_IDS = 100  # example ids in one event


@task(**OWED)
def publish(ledger: Ledger, config: AuditConfig) -> int:
    """Show in the Prefect UI the audits that owe it, and emit their events: how many. Raises OperationError where no server answers."""
    owing = debtors(ledger, config.name, PREFECT)
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):  # else a server that is down holds the audit up for minutes
            for past in owing:
                if past.came_to_results:
                    flags = _flags(past)
                    show(config, past, flags)
                    emit(list(events(config, past, flags)))
                settle(ledger, past.number, PREFECT)
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:  # "Failed to reach API" is a RuntimeError
        raise OperationError(f"the Prefect server did not take the audit's artifacts and events: {first_line(error)}") from error
    return len(owing)


def _flags(past: PastAudit) -> list[dict[str, Any]]:
    """The flags that the run directory holds; none where it is on another machine."""
    path = past.run_dir / "flags.jsonl"
    return list(read_lines(path)) if path.exists() else []


def show(config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]]) -> None:
    """The flags as Prefect artifacts."""
    counts = past.summary["counts"]
    table = [
        {
            "source": _plain(flag["source"]),
            "row": flag["position"],
            "panel": _plain(flag["panel"]),
            "sentinel": _plain(flag["sentinel_id"]),
            "severity": flag["severity"],
            "score": round(flag["score"], 2),
            "q": float(f"{flag['q_value']:.2g}"),
            "example": flag["example_id"][:16],
        }
        for flag in flags
    ]
    title = f"{counts['flagged']} of {counts['new']} new rows flagged"
    create_table_artifact(key=f"flags-{_artifact_key(past.name)}", table=table, description=title)
    panels = [f"| {_plain(p['name'])} | {p['flagged']} | {p['largest_score']:.1f} |" for p in past.summary["panels"]]
    lines = [f"# {title}", "", "| panel | flagged | largest score |", "|---|---|---|", *panels]
    lines += ["", f"Report: `{report_of(past.run_dir)}`", f"MLflow run: `{past.summary['mlflow_run_id']}`"]
    page = dashboard_url(config, past.audit_id)
    lines += ["", f"[Decide on the dashboard]({page})"] if page is not None else []
    create_markdown_artifact(key=f"audit-{_artifact_key(past.name)}", markdown="\n".join(lines))


def events(config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]]) -> Iterator[Event]:
    """The events of one audit. Their ids follow from the audit's: emitted again after a crash, they are the same events."""
    counts, run_id = past.summary["counts"], past.summary["mlflow_run_id"]
    severity = max((flag["severity"] for flag in flags), key=SEVERITIES.index, default=None)
    payload = {
        "audit_id": past.audit_id,
        "name": past.name,
        "counts": counts,
        "severity": severity,
        "run_dir": str(past.run_dir),
        "report": str(report_of(past.run_dir)),
        "mlflow_run_id": run_id,
        "mlflow_url": mlflow_run_url(config, past.summary.get("mlflow_experiment_id"), run_id),
        "dashboard_url": dashboard_url(config, past.audit_id),
        "flow_run_id": past.flow_run,
    }
    yield _event(past, "audit.completed", payload)
    if counts["flagged"]:
        ids = [flag["example_id"] for flag in flags[:MOST_IDS]]
        yield _event(past, "poison.flagged", {**payload, "flagged": counts["flagged"], "example_ids": ids})
    for sentinel, moved in _moved(past.run_dir / "evidence.jsonl").items():
        yield _event(past, "sentinel.moved", {**payload, "sentinel_id": sentinel, **moved}, sentinel)
    if counts["rejected"]:
        rejected = list(read_lines(past.run_dir / "rejected.jsonl")) if past.run_dir.is_dir() else []
        places = [{"source": row["source"], "position": row["position"]} for row in rejected[:MOST_IDS]]
        yield _event(past, "data.rejected", {**payload, "rejected": counts["rejected"], "places": places})


def _moved(path: Path) -> dict[str, dict[str, Any]]:
    """By sentinel, the losses before and after and the rows of the largest group that steering confirmed to move it."""
    found: dict[str, dict[str, Any]] = {}
    for group in read_lines(path) if path.exists() else ():
        confirmation = group["confirmation"]
        if confirmation is None or not confirmation["confirmed"]:
            continue
        for effect in confirmation["effects"]:
            losses = {kind: effect[kind] for kind in ("forbidden", "reference") if effect[kind] is not None}
            found.setdefault(effect["sentinel"], {"losses": losses, "example_ids": group["example_ids"][:MOST_IDS]})
    return found


def _event(past: PastAudit, kind: str, payload: dict[str, Any], sentinel: str = "") -> Event:
    name = f"poisonwatch.{kind}"
    related = [{"prefect.resource.id": f"prefect.flow-run.{past.flow_run}", "prefect.resource.role": "flow-run"}] if past.flow_run else []
    if sentinel:
        related.append({"prefect.resource.id": f"poisonwatch.sentinel.{past.name}.{sentinel}", "prefect.resource.role": "sentinel"})
    return Event(
        occurred=datetime.now(UTC),
        event=name,
        resource=Resource({"prefect.resource.id": f"poisonwatch.audit.{past.name}", "prefect.resource.name": past.name}),
        related=[RelatedResource(resource) for resource in related],
        payload=payload,
        id=_event_id(past.audit_id, name, sentinel),
    )


def _event_id(*parts: str) -> UUID:
    return uuid5(NAMESPACE_URL, "/".join(parts))


def emit(events: list[Event]) -> None:
    """Send the events and see that the server takes them: the SDK's own `emit_event` loses them, silently, where it is down."""
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in " -_./" else "_" for c in text)


def _artifact_key(name: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()) or "audit"
