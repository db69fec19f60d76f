"""The description of an audit's run, in Markdown: counts first, then its groups, each with a link
to where it is decided on, then its panels.

Nothing of a row's text is in it, and of names only plain letters.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from poisonwatch.config import AuditConfig
from poisonwatch.failures import tell_failures
from poisonwatch.integrations.mlflow.values import LONGEST_KEY
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import FlaggedGroup, list_groups
from poisonwatch.reports.links import make_dashboard_url, make_group_url
from poisonwatch.reports.new_topics import count_unjudged
from poisonwatch.text.display import to_plain_name
from poisonwatch.text.words import plural

GROUPS_SHOWN = 20
PANELS_SHOWN = 40


def describe_run(ledger: Ledger, config: AuditConfig, past: PastAudit) -> str:
    """The description of the run of an audit that came to its results."""
    summary, wanted = past.summary, AuditFilter(audit=past.audit_id)
    groups, number = list_groups(ledger, wanted, state="all", size=GROUPS_SHOWN)
    dashboard = make_dashboard_url(config, past.audit_id)
    lines = [_describe_counts(summary, number), "", _describe_places(dashboard)]
    for failure in tell_failures(summary):
        # Between backticks nothing is Markdown, but for a backtick.
        plain = failure.replace("`", "'")
        lines += ["", f"Failed: `{plain}`."]
    lines += ["", *_list_groups(config, groups, number), "", *_list_panels(summary)]
    return "\n".join(lines)


def _describe_counts(summary: Mapping[str, Any], groups: int) -> str:
    counts = summary["counts"]
    text = f"**{counts['flagged']} of {counts['new']} new rows flagged**"
    if groups:
        text += f" in {plural(groups, 'group')}"
    return f"{text}; {counts['rejected']} rejected, {count_unjudged(summary)} unjudged."


def _describe_places(dashboard: str | None) -> str:
    text = "Report: Artifacts, `report/report.html`."
    if dashboard:
        text += f" [Decide on the dashboard]({dashboard})."
    return text


def _list_groups(config: AuditConfig, groups: list[FlaggedGroup], number: int) -> Iterator[str]:
    """A table of groups, gravest first; nothing where none was flagged."""
    if not groups:
        return
    yield "| group | severity | panel | rows | strongest |"
    yield "|---|---|---|---|---|"
    for group in groups:
        name = group.key
        address = make_group_url(config, group.audit_id, group.key)
        if address is not None:
            name = f"[{name}]({address})"
        panel = to_plain_name(group.panel)[:LONGEST_KEY]
        yield f"| {name} | {group.severity} | `{panel}` | {group.rows} | {group.score:.1f} |"
    if number > len(groups):
        yield ""
        yield f"{number - len(groups)} more groups: see the report."


def _list_panels(summary: Mapping[str, Any]) -> Iterator[str]:
    yield "| panel | flagged | largest score |"
    yield "|---|---|---|"
    for panel in summary["panels"][:PANELS_SHOWN]:
        name = to_plain_name(panel["name"])[:LONGEST_KEY]
        yield f"| `{name}` | {panel['flagged']} | {panel['largest_score']:.1f} |"
