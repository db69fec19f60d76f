"""What the Prefect UI shows of an audit.

Row text stays out: the UI renders Markdown, and row text is hostile.
"""

import re
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from poisonwatch.atomic import read_jsonl
from poisonwatch.config import AuditConfig
from poisonwatch.failures import tell_failures
from poisonwatch.ledger.history import PastAudit
from poisonwatch.reports.links import locate_report, make_dashboard_url


def read_flags(past: PastAudit) -> list[dict[str, Any]]:
    """The flags that the run directory holds; none where it is on another machine."""
    path = past.run_dir / "flags.jsonl"
    if not path.exists():
        return []
    return list(read_jsonl(path))


def create_artifacts(config: AuditConfig, past: PastAudit, flags: list[dict[str, Any]]) -> None:
    """The flags as a table, and the audit as a page."""
    counts = past.summary["counts"]
    title = f"{counts['flagged']} of {counts['new']} new rows flagged"
    # The same keys for every audit of a name: the UI shows the artifacts of a key as versions.
    key = make_artifact_key(past.name)
    table = [describe_flag(flag) for flag in flags]
    create_table_artifact(key=f"flags-{key}", table=table, description=title)
    page = describe_audit(config, past, title)
    create_markdown_artifact(key=f"audit-{key}", markdown=page)


def describe_flag(flag: dict[str, Any]) -> dict[str, Any]:
    """A flag as a line of the table."""
    return {
        "source": _drop_markdown(flag["source"]),
        "row": flag["position"],
        "panel": _drop_markdown(flag["panel"]),
        "sentinel": _drop_markdown(flag["sentinel_id"]),
        "severity": flag["severity"],
        "score": round(flag["score"], 2),
        "q": float(f"{flag['q_value']:.2g}"),
        "example": flag["example_id"][:16],
    }


def describe_audit(config: AuditConfig, past: PastAudit, title: str) -> str:
    """A table of panels, and where the rest is, in Markdown."""
    lines = [f"# {title}", "", "| panel | flagged | largest score |", "|---|---|---|"]
    for panel in past.summary["panels"]:
        name = _drop_markdown(panel["name"])
        lines.append(f"| {name} | {panel['flagged']} | {panel['largest_score']:.1f} |")
    lines.append("")
    for failure in tell_failures(past.summary):
        lines += [f"Failed: {_drop_markdown(failure)}", ""]
    lines.append(f"Report: `{locate_report(past.run_dir)}`")
    lines.append(f"MLflow run: `{past.summary['mlflow_run_id']}`")
    page = make_dashboard_url(config, past.audit_id)
    if page is not None:
        lines += ["", f"[Decide on the dashboard]({page})"]
    return "\n".join(lines)


def _drop_markdown(text: str) -> str:
    """Names of files, panels and sentinels without what Markdown or HTML would act on."""
    kept = []
    for character in text:
        harmless = character.isalnum() or character in " -_./"
        kept.append(character if harmless else "_")
    return "".join(kept)


def make_artifact_key(name: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return key or "audit"
