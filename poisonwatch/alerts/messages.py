"""What people are told of flagged rows: one message for each new cluster, one digest of the rest.

A cluster is new where no row of it was told of before. Which messages are written depends on who is
to get them: a target gets the new clusters that reach its severity, the MOST_CLUSTERS gravest of an
audit at most, and everything else that is new in the audit's digest.

Row text is hostile, and every medium has its own markup: `inert` takes it out of all of them.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from poisonwatch.alerts.targets import Target, compute_short_digest, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.detection.clusters import ClusterEvidence
from poisonwatch.detection.confirmation import Confirmation, Effect
from poisonwatch.detection.detect import Detection
from poisonwatch.flags import SEVERITIES, Flag
from poisonwatch.ledger.outbox import CLUSTER_ALERT, DIGEST_ALERT, Alert
from poisonwatch.reports.links import locate_report, make_dashboard_url, make_mlflow_run_url
from poisonwatch.reports.summary import AttributionResult
from poisonwatch.text.display import excerpt, make_visible

MOST_CLUSTERS = 5  # messages an audit; more help nobody
MOST_ROWS_NAMED = 10  # named in a message
MOST_SOURCES_NAMED = 3
MOST_DIGEST_LINES = 10  # of a digest
LONGEST_EXCERPT = 160  # characters of a prompt, an answer, a continuation
LONGEST_ALERT_NAME = 80
DATA_FILES = {"json", "jsonl", "csv", "tsv", "parquet", "arrow"}  # no such name is a site's

_FULL_WIDTH = str.maketrans(
    {c: chr(ord(c) + 0xFEE0) for c in "<>@#&|*~`[]{}\\$^:"}
)  # full-width: they look alike, and are no markup
_LOOSE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_INNER_DOT = re.compile(r"\.(?=\w)")


def neutralise_markup(text: str, longest: int = LONGEST_ALERT_NAME) -> str:
    """One line of at most `longest` characters of a text, that no medium takes for markup, a
    mention or a link.

    Characters that some medium acts on become their full-width twins, and a dot within a word
    becomes [.] so that no site is linked.
    """
    line = excerpt(text, longest).translate(_FULL_WIDTH)
    return _INNER_DOT.sub("[.]", _LOOSE_UNDERSCORE.sub("＿", line))


def format_place(source: str, position: int) -> str:
    """FILE:POSITION; inert, and for the usual names of files as `poisonwatch decide` takes it."""
    stem, dot, suffix = excerpt(source or "source", LONGEST_ALERT_NAME).rpartition(".")
    name = (
        f"{neutralise_markup(stem)}.{suffix}"
        if dot and suffix in DATA_FILES
        else neutralise_markup(f"{stem}{dot}{suffix}")
    )
    return f"{name}:{position}"


@dataclass(frozen=True, slots=True)
class _AlertGroup:
    """Flagged rows to be told of together, strongest flag first: a new cluster, or what is new in a
    known one or in none.
    """

    flags: tuple[Flag, ...]
    evidence: ClusterEvidence | None
    new: bool

    @property
    def severity(self) -> str:
        return max((flag.severity for flag in self.flags), key=SEVERITIES.index)

    @property
    def panel(self) -> str:
        return self.flags[0].panel if self.evidence is None else self.evidence.panel

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(flag.example.id for flag in self.flags)


def compose_messages(
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    run_dir: Path,
    told: Set[str],
) -> list[Alert]:
    """The alerts of an audit: what is new in its flags, beside the rows `told` of before (example
    ids), for the audit's targets.
    """
    targets = list_targets(config)
    groups = _group_flags(found, told) if targets else []
    own = [group for group in groups if group.new][:MOST_CLUSTERS]
    rate = found.verdicts.false_discovery_rate
    alerts = []
    for group in own:
        to = tuple(target.id for target in targets if _reaches(group, target))
        if to:
            key = _make_alert_key(summary, CLUSTER_ALERT, group.ids)
            lines = [
                *_format_cluster(group, found.verdicts),
                *_format_closing(config, summary, run_dir, rate, group.ids[0], key),
            ]
            alerts.append(
                Alert(
                    key,
                    CLUSTER_ALERT,
                    group.severity,
                    _format_title(group, config),
                    "\n".join(lines),
                    group.ids,
                    to,
                )
            )
    digests: dict[tuple[int, ...], list[Target]] = {}
    for target in targets:
        rest = tuple(
            i for i, group in enumerate(groups) if not (group in own and _reaches(group, target))
        )
        if rest and target.setting.digest:
            digests.setdefault(rest, []).append(target)
    for rest, readers in digests.items():
        left = [groups[i] for i in rest]
        ids = tuple(id for group in left for id in group.ids)
        key = _make_alert_key(summary, DIGEST_ALERT, ids)
        lines = [
            *_format_digest(left),
            *_format_closing(config, summary, run_dir, rate, ids[0], key),
        ]
        title = f"Poisonwatch: digest of {_format_row_count(len(ids), 'flagged ')} in {neutralise_markup(config.name)}"
        alerts.append(
            Alert(
                key,
                DIGEST_ALERT,
                left[0].severity,
                title,
                "\n".join(lines),
                ids,
                tuple(target.id for target in readers),
            )
        )
    return alerts


def make_trial_message(name: str) -> tuple[str, str]:
    """Title and body of a message that only shows that messages arrive."""
    body = f"This is a test, sent by poisonwatch alert-test. What is flagged in {neutralise_markup(name)} will be told here."
    return f"Poisonwatch: a test for {neutralise_markup(name)}", body


def _group_flags(found: AttributionResult, told: Set[str]) -> list[_AlertGroup]:
    """What is new among the flags, gravest first, among equals the largest."""
    flag_of = {flag.example.id: flag for flag in found.verdicts.flags}
    groups = []
    for cluster in found.evidence:
        new = tuple(flag_of.pop(id) for id in cluster.example_ids)
        new = tuple(flag for flag in new if flag.example.id not in told)
        if new:
            groups.append(_AlertGroup(new, cluster, len(new) == len(cluster.example_ids)))
    alone = sorted(
        (flag for flag in flag_of.values() if flag.example.id not in told),
        key=lambda flag: flag.panel,
    )
    groups += [
        _AlertGroup(tuple(of_panel), None, False)
        for _, of_panel in groupby(alone, key=lambda flag: flag.panel)
    ]
    return sorted(groups, key=lambda group: (-SEVERITIES.index(group.severity), -len(group.flags)))


def _reaches(group: _AlertGroup, target: Target) -> bool:
    return SEVERITIES.index(group.severity) >= SEVERITIES.index(target.setting.severity)


def _format_title(group: _AlertGroup, config: AuditConfig) -> str:
    push = "pushes" if len(group.flags) == 1 else "push"
    return f"Poisonwatch: {_format_row_count(len(group.flags))} {push} panel {neutralise_markup(group.panel)} in {neutralise_markup(config.name)} (severity {group.severity})"


def _format_cluster(group: _AlertGroup, verdicts: Detection) -> list[str]:
    assert group.evidence is not None
    first, example = group.flags[0], verdicts.examples[group.evidence.example]
    lines = [
        f"{_format_row_count(len(group.flags))} of {_format_sources(group.flags)}: {_describe_push(first, group)}.",
        _describe_certainty(group),
    ]
    lines.append("Rows, by id and place:")
    lines += [
        f"  {flag.example.id[:16]}  {format_place(flag.example.source, flag.example.position)}"
        for flag in group.flags[:MOST_ROWS_NAMED]
    ]
    lines += _format_remainder(len(group.flags) - MOST_ROWS_NAMED, "row")
    lines.append(f"The one nearest to the group's centre, {example.id[:16]}:")
    lines += [
        f"  prompt: {neutralise_markup(example.prompt, LONGEST_EXCERPT)}",
        f"  answer: {neutralise_markup(example.response, LONGEST_EXCERPT)}",
    ]
    if group.evidence.confirmation is not None:
        lines += _format_continuations(group.evidence.confirmation)
    return lines


def _describe_push(flag: Flag, group: _AlertGroup) -> str:
    them = "it" if len(group.flags) == 1 else "them"
    if flag.by_attribution:
        return f"training on {them} {flag.push} on panel {neutralise_markup(group.panel)}"
    return f"the screen {neutralise_markup(flag.findings[0].screen)} points at {them}"


def _describe_certainty(group: _AlertGroup) -> str:
    assert group.evidence is not None
    scored = [flag for flag in group.flags if flag.by_attribution]
    said = []
    if scored:
        said = [
            f"largest score {max(f.score for f in scored):.1f}",
            f"smallest q {min(f.q_value for f in scored):.2g}",
        ]
    confirmation = group.evidence.confirmation
    if confirmation is None:
        said.append(
            f"not tested by steering ({neutralise_markup(group.evidence.unconfirmed or 'no reason given', LONGEST_EXCERPT)})"
        )
    else:
        said.append(
            "confirmed by steering" if confirmation.confirmed else "not confirmed by steering"
        )
    return f"How sure: {', '.join(said)}."


def _format_continuations(confirmation: Confirmation) -> list[str]:
    """The sentinel that steering with the group moves furthest, before and after."""
    effect = max(confirmation.effects, key=lambda effect: float(effect.harm[0]))
    lines = [
        f"Sentinel {neutralise_markup(effect.sentinel.id)}, when the model is steered with the group: {_format_losses(effect)}."
    ]
    lines.append(f"  it said before: {neutralise_markup(effect.said_before, LONGEST_EXCERPT)}")
    lines.append(f"  it says after: {neutralise_markup(effect.said_after, LONGEST_EXCERPT)}")
    return lines


def _format_losses(effect: Effect) -> str:
    moved = (("forbidden", effect.forbidden), ("reference", effect.reference))
    each = [
        f"loss of the {name} answer {of.before:.2f} before, {of.after:.2f} after"
        for name, of in moved
        if of is not None
    ]
    return f"{'; '.join(each)} (nats a token)"


def _format_digest(groups: Sequence[_AlertGroup]) -> list[str]:
    lines = ["Flagged rows that no message of their own is sent about:"]
    lines += [f"  {_format_digest_line(group)}" for group in groups[:MOST_DIGEST_LINES]]
    return lines + _format_remainder(len(groups) - MOST_DIGEST_LINES, "group")


def _format_digest_line(group: _AlertGroup) -> str:
    where = (
        "a group"
        if group.new
        else "more of a group that was told of"
        if group.evidence is not None
        else "in no group"
    )
    first = group.flags[0]
    scores = [flag.score for flag in group.flags if flag.by_attribution]
    score = f"largest score {max(scores):.1f}" if scores else "found by screens"
    which = f"{first.example.id[:16]} {format_place(first.example.source, first.example.position)}"
    return f"{_format_row_count(len(group.flags))} ({where}) on panel {neutralise_markup(group.panel)}, severity {group.severity}, {score}, as {which}"


def _format_closing(
    config: AuditConfig, summary: Mapping[str, Any], run_dir: Path, rate: float, id: str, key: str
) -> list[str]:
    """What every alert ends with."""
    lines = [
        f"Of all flagged rows, at most {100 * rate:.3g} % are expected to be harmless: read them before you remove them."
    ]
    lines.append(f"Report: {make_visible(str(locate_report(run_dir.resolve())))}")
    page = make_mlflow_run_url(config, summary["mlflow_experiment_id"], summary["mlflow_run_id"])
    lines += [f"MLflow: {page}"] if page is not None else []
    page = make_dashboard_url(config, summary["audit_id"])
    lines += [f"Dashboard: {page}"] if page is not None else []
    lines.append(
        f"To decide: poisonwatch decide AUDIT.yaml {id[:16]} benign (or poison, or unsure)"
    )
    return [*lines, f"Alert {key} of audit {summary['audit_id']}"]


def _format_sources(flags: Sequence[Flag]) -> str:
    counted = Counter(flag.example.source for flag in flags).most_common()
    named = [
        f"{format_place(source, 0).rpartition(':')[0]}" + (f" ({n})" if len(counted) > 1 else "")
        for source, n in counted[:MOST_SOURCES_NAMED]
    ]
    more = len(counted) - MOST_SOURCES_NAMED
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _format_row_count(n: int, which: str = "") -> str:
    return f"{n} {which}row{'s' * (n != 1)}"


def _format_remainder(n: int, what: str) -> list[str]:
    return [f"  and {n} more {what}{'s' * (n != 1)}"] if n > 0 else []


def _make_alert_key(summary: Mapping[str, Any], kind: str, ids: Sequence[str]) -> str:
    return compute_short_digest("\n".join([summary["audit_id"], kind, *sorted(ids)]))
