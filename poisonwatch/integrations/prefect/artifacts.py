"""What the Prefect UI shows of an audit, and the events that automations can act on.

    poisonwatch.audit.completed     one an audit
    poisonwatch.poison.flagged      where rows were flagged
    poisonwatch.sentinel.moved      one a sentinel that a confirmed group of rows moves
    poisonwatch.data.rejected       where rows failed validation

Row text stays out of both: the UI renders Markdown, automations write what they get into messages,
and row text is hostile.
"""

from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from poisonwatch.atomic import read_jsonl
from poisonwatch.config import AuditConfig
from poisonwatch.ledger.history import PastAudit
from poisonwatch.reports.links import locate_report, make_dashboard_url


def read_flags(past: PastAudit) -> list[dict[str, Any]]:
    """The flags that the run directory holds; none where it is on another machine."""
    path = past.run_dir / "flags.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def create_artifacts(config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]]) -> None:
    """The flags as Prefect artifacts."""
    counts = past.summary["counts"]
    table = [
        {
            "source": _drop_markdown(flag["source"]),
            "row": flag["position"],
            "panel": _drop_markdown(flag["panel"]),
            "sentinel": _drop_markdown(flag["sentinel_id"]),
            "severity": flag["severity"],
            "score": round(flag["score"], 2),
            "q": float(f"{flag['q_value']:.2g}"),
            "example": flag["example_id"][:16],
        }
        for flag in flags
    ]
    title = f"{counts['flagged']} of {counts['new']} new rows flagged"
    create_table_artifact(
        key=f"flags-{_make_artifact_key(past.name)}", table=table, description=title
    )
    panels = [
        f"| {_drop_markdown(p['name'])} | {p['flagged']} | {p['largest_score']:.1f} |"
        for p in past.summary["panels"]
    ]
    lines = [f"# {title}", "", "| panel | flagged | largest score |", "|---|---|---|", *panels]
    lines += [
        "",
        f"Report: `{locate_report(past.run_dir)}`",
        f"MLflow run: `{past.summary['mlflow_run_id']}`",
    ]
    page = make_dashboard_url(config, past.audit_id)
    lines += ["", f"[Decide on the dashboard]({page})"] if page is not None else []
    create_markdown_artifact(
        key=f"audit-{_make_artifact_key(past.name)}", markdown="\n".join(lines)
    )


def _drop_markdown(text: str) -> str:
    return "".join(c if c.isalnum() or c in " -_./" else "_" for c in text)


def _make_artifact_key(name: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return (
        "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split())
        or "audit"
    )
