"""One plain message in place of alerts that could not be composed: somebody is notified."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poisonwatch.alerts.markup import neutralise_markup
from poisonwatch.alerts.targets import compute_short_digest, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.failures import LONGEST_LINE, tell_failures
from poisonwatch.flags import SEVERITIES, Flag
from poisonwatch.ledger.outbox import DIGEST_ALERT, Alert
from poisonwatch.reports.links import locate_report
from poisonwatch.text.display import make_visible
from poisonwatch.text.words import plural

MOST_FAILURES_NAMED = 5


def describe_failures(summary: Mapping[str, Any]) -> list[str]:
    """A line for each part of the audit that failed, of MOST_FAILURES_NAMED, as no medium takes for
    markup.
    """
    failures = tell_failures(summary)
    lines = []
    for failure in failures[:MOST_FAILURES_NAMED]:
        lines.append(f"Failed: {neutralise_markup(failure, LONGEST_LINE)}")
    left = len(failures) - MOST_FAILURES_NAMED
    if left > 0:
        lines.append(f"  and {plural(left, 'more part')} of this audit")
    return lines


def compose_stand_in(
    config: AuditConfig, summary: Mapping[str, Any], flags: Sequence[Flag], run_dir: Path
) -> list[Alert]:
    """That rows were flagged, and where to read more, for the targets that a flag of such severity
    reaches; nothing where nothing was flagged, or nobody is to be notified.
    """
    severity = max((flag.severity for flag in flags), key=SEVERITIES.index, default=None)
    readers = []
    for target in list_targets(config):
        if severity and SEVERITIES.index(severity) >= SEVERITIES.index(target.setting.severity):
            readers.append(target.id)
    if severity is None or not readers:
        return []
    ids = tuple(flag.example.id for flag in flags)
    name = neutralise_markup(config.name)
    # From what the alert is about: composed again after a crash it has the same key.
    key = compute_short_digest("\n".join([summary["audit_id"], "stand-in", *sorted(ids)]))
    lines = [
        f"{plural(len(ids), 'row')} flagged, the gravest of severity {severity}. The messages "
        "about them could not be composed; the report has each row with its reasons.",
        *describe_failures(summary),
        f"Report: {make_visible(str(locate_report(run_dir.resolve())))}",
        f"Alert {key} of audit {summary['audit_id']}",
    ]
    return [
        Alert(
            key=key,
            kind=DIGEST_ALERT,
            severity=severity,
            title=f"Poisonwatch: {plural(len(ids), 'flagged row')} in {name}",
            body="\n".join(lines),
            example_ids=ids,
            targets=tuple(readers),
        )
    ]
