"""What people are notified of: one message for each new cluster of flagged rows, one digest of the
rest.

A cluster is new where nobody was notified of a row of it before. Which messages are written depends
on who is to get them: a target gets the new clusters that reach its severity, the MOST_CLUSTERS
gravest of an audit at most, and everything else that is new in the audit's digest.

Row text is hostile: whatever of it goes into a message passes through `markup`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from poisonwatch.alert_config import find_owners
from poisonwatch.alerts.groups import AlertGroup, group_flags
from poisonwatch.alerts.markup import format_place, neutralise_markup
from poisonwatch.alerts.stand_in import describe_failures
from poisonwatch.alerts.targets import Target, compute_short_digest, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.effect_size import EXTENTS
from poisonwatch.detection.evidence import ClusterEvidence, Confirmation, Effect
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import Example
from poisonwatch.flags import LOWERED, Flag
from poisonwatch.ledger.mutes import Mute
from poisonwatch.ledger.outbox import CLUSTER_ALERT, DIGEST_ALERT, Alert
from poisonwatch.reports.links import locate_report, make_dashboard_url, make_mlflow_run_url
from poisonwatch.screens.finding import NEW_TOPIC
from poisonwatch.text.display import make_visible
from poisonwatch.text.words import plural

MOST_CLUSTERS = 5  # messages an audit; more help nobody
MOST_ROWS_NAMED = 10  # named in a message
MOST_SOURCES_NAMED = 3
MOST_DIGEST_LINES = 10  # of a digest
LONGEST_EXCERPT = 160  # characters of a prompt, an answer, a continuation


def compose_messages(
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    run_dir: Path,
    notified: Set[str],
    mutes: Sequence[Mute] = (),
) -> list[Alert]:
    """The alerts of an audit: what is new in its flags, beside the rows `notified` of before
    (example ids) and what is muted, for the audit's targets.
    """
    targets = list_targets(config)
    if not targets:
        return []
    groups = []
    for group in group_flags(found, notified, config.alerts):
        if group.find_mute(mutes) is None:
            groups.append(group)
    readers_of: dict[int, list[Target]] = {}
    # Targets that are left the same groups share one digest: it is written once, and sent to each.
    digests: dict[tuple[int, ...], list[Target]] = {}
    for place, target in enumerate(targets):
        told = [i for i, group in enumerate(groups) if place in group.readers]
        # Gravest first: what is past the limit comes in the digest.
        own = [i for i in told if groups[i].new and _reaches(groups[i], target)][:MOST_CLUSTERS]
        for i in own:
            readers_of.setdefault(i, []).append(target)
        rest = tuple(i for i in told if i not in own)
        if rest and target.setting.digest:
            digests.setdefault(rest, []).append(target)
    composer = _Composer(config, summary, found.detection, run_dir)
    alerts = []
    for i, readers in sorted(readers_of.items(), key=itemgetter(0)):
        alerts.append(composer.compose_cluster(groups[i], readers))
    for places, readers in digests.items():
        alerts.append(composer.compose_digest([groups[i] for i in places], readers))
    return alerts


@dataclass(frozen=True, slots=True)
class _Composer:
    """What every alert of an audit is written from."""

    config: AuditConfig
    summary: Mapping[str, Any]
    detection: Detection
    run_dir: Path

    def compose_cluster(self, group: AlertGroup, readers: Sequence[Target]) -> Alert:
        return self._compose(
            CLUSTER_ALERT,
            group.severity,
            ids=group.ids,
            title=_format_title(group, self.config),
            lines=[*_format_cluster(group, self.detection), *self._format_owners(group)],
            readers=readers,
        )

    def compose_digest(self, groups: Sequence[AlertGroup], readers: Sequence[Target]) -> Alert:
        ids: list[str] = []
        for group in groups:
            ids += group.ids
        name = neutralise_markup(self.config.name)
        return self._compose(
            DIGEST_ALERT,
            groups[0].severity,
            ids=tuple(ids),
            title=f"Poisonwatch: digest of {plural(len(ids), 'flagged row')} in {name}",
            lines=self._format_digest(groups),
            readers=readers,
        )

    def _compose(
        self,
        kind: str,
        severity: str,
        *,
        ids: tuple[str, ...],
        title: str,
        lines: Sequence[str],
        readers: Sequence[Target],
    ) -> Alert:
        key = _make_alert_key(self.summary, kind, ids)
        return Alert(
            key=key,
            kind=kind,
            severity=severity,
            title=title,
            body="\n".join([*lines, *self._format_closing(ids[0], key)]),
            example_ids=ids,
            targets=tuple(target.id for target in readers),
        )

    def _format_digest(self, groups: Sequence[AlertGroup]) -> list[str]:
        lines = ["Flagged rows that no message of their own is sent about:"]
        for group in groups[:MOST_DIGEST_LINES]:
            lines.append(f"  {_format_digest_line(group)}")
            lines += [f"  {line}" for line in self._format_owners(group)]
        return lines + _format_remainder(len(groups) - MOST_DIGEST_LINES, "group")

    def _format_owners(self, group: AlertGroup) -> list[str]:
        owners = find_owners(self.config.alerts, group.routed)
        if not owners:
            return []
        return [f"Owner: {', '.join(map(neutralise_markup, owners))}"]

    def _format_closing(self, id: str, key: str) -> list[str]:
        """What every alert ends with; `id` is that of a row to decide on."""
        summary = self.summary
        rate = self.detection.false_discovery_rate
        # The path is the user's own, and whole: it has to open where it is pasted.
        report = make_visible(str(locate_report(self.run_dir.resolve())))
        lines = [
            f"Of all flagged rows, at most {100 * rate:.3g} % are expected to be harmless: "
            "read them before you remove them.",
            *describe_failures(summary),
            *_describe_mutes(summary),
            f"Report: {report}",
        ]
        experiment, run = summary["mlflow_experiment_id"], summary["mlflow_run_id"]
        page = make_mlflow_run_url(self.config, experiment, run)
        if page is not None:
            lines.append(f"MLflow: {page}")
        page = make_dashboard_url(self.config, summary["audit_id"])
        if page is not None:
            lines.append(f"Dashboard: {page}")
        lines.append(
            f"To decide: poisonwatch decide AUDIT.yaml {id[:16]} benign (or poison, or unsure)"
        )
        lines.append(f"Alert {key} of audit {summary['audit_id']}")
        return lines


def _reaches(group: AlertGroup, target: Target) -> bool:
    return target.setting.reaches(group.severity)


def _format_title(group: AlertGroup, config: AuditConfig) -> str:
    panel, name = neutralise_markup(group.panel), neutralise_markup(config.name)
    push = "push"
    if len(group.flags) == 1:
        push = "pushes"
    return (
        f"Poisonwatch: {plural(len(group.flags), 'row')} {push} panel {panel} in {name} "
        f"(severity {group.severity})"
    )


def _format_cluster(group: AlertGroup, detection: Detection) -> list[str]:
    assert group.evidence is not None
    count = plural(len(group.flags), "row")
    lines = [
        f"{count} of {_format_sources(group.flags)}: {_describe_push(group)}.",
        _describe_certainty(group, group.evidence),
        "Rows, by id and place:",
    ]
    for flag in group.flags[:MOST_ROWS_NAMED]:
        lines.append(f"  {_format_row(flag, '  ')}")
    lines += _format_remainder(len(group.flags) - MOST_ROWS_NAMED, "row")
    example = detection.examples[group.evidence.example]
    lines.append(f"The one nearest to the group's centre, {example.id[:16]}:")
    for name, text in _list_texts(example):
        lines.append(f"  {name}: {neutralise_markup(text, LONGEST_EXCERPT)}")
    if group.evidence.confirmation is not None:
        lines += _format_continuations(group.evidence.confirmation)
    return lines


def _list_texts(example: Example) -> list[tuple[str, str]]:
    """What a row says, by name; tools and a rejected answer where it has them."""
    texts = [("prompt", example.prompt), ("answer", example.response)]
    if example.lowered:
        texts[1] = (f"answer, {LOWERED}", example.response)
    if example.tools:
        texts.insert(0, ("tools", example.tools))
    if example.rejected:
        texts.append(("rejected answer", example.rejected_response))
    return texts


def _describe_push(group: AlertGroup) -> str:
    # The strongest flag speaks for its group: the others push the same panel less far.
    flag = group.flags[0]
    them = "them"
    if len(group.flags) == 1:
        them = "it"
    if flag.by_attribution:
        return f"training on {them} {flag.push} on panel {neutralise_markup(group.panel)}"
    # What a screen points at says more than that nothing can be said.
    if flag.findings[0].screen == NEW_TOPIC:
        return (
            "held back, since trusted rows do not cover the topic: this push on panel "
            f"{neutralise_markup(group.panel)} cannot be judged"
        )
    return f"the screen {neutralise_markup(flag.findings[0].screen)} points at {them}"


def _describe_certainty(group: AlertGroup, evidence: ClusterEvidence) -> str:
    said = []
    if group.scored:
        said.append(f"largest score {max(map(attrgetter('score'), group.scored)):.1f}")
        said.append(f"smallest q {min(map(attrgetter('q_value'), group.scored)):.2g}")
    said.append(_describe_confirmation(evidence))
    return f"How sure: {', '.join(said)}."


def _describe_confirmation(evidence: ClusterEvidence) -> str:
    if evidence.confirmation is None:
        why = neutralise_markup(evidence.unconfirmed or "no reason given", LONGEST_EXCERPT)
        return f"not tested by steering ({why})"
    found = "not confirmed"
    if evidence.confirmation.confirmed:
        found = "confirmed"
    return f"{found} by steering: {EXTENTS[evidence.confirmation.grade]}"


def _format_continuations(confirmation: Confirmation) -> list[str]:
    """The sentinel that steering with the group moves furthest, before and after."""
    effect = max(confirmation.effects, key=lambda effect: float(effect.harm[0]))
    lines = [
        f"Sentinel {neutralise_markup(effect.sentinel.id)}, when the model is steered with the "
        f"group: {_format_losses(effect)}."
    ]
    if confirmation.unsaid is not None:
        why = neutralise_markup(confirmation.unsaid, LONGEST_EXCERPT)
        return [*lines, f"  not asked what it says ({why})"]
    return [
        *lines,
        f"  it said before: {neutralise_markup(effect.said_before, LONGEST_EXCERPT)}",
        f"  it says after: {neutralise_markup(effect.said_after, LONGEST_EXCERPT)}",
    ]


def _format_losses(effect: Effect) -> str:
    losses = []
    for name, change in (("forbidden", effect.forbidden), ("reference", effect.reference)):
        if change is not None:
            losses.append(
                f"loss of the {name} answer {change.before:.2f} before, {change.after:.2f} after"
            )
    return f"{'; '.join(losses)} (nats a token)"


def _format_digest_line(group: AlertGroup) -> str:
    where = "in no group"
    if group.new:
        where = "a group"
    elif group.evidence is not None:
        where = "more of a group that was told of"
    score = "found by screens"
    if group.flags[0].held:
        score = "held back: its topic cannot be judged"
    if group.scored:
        score = f"largest score {max(map(attrgetter('score'), group.scored)):.1f}"
    return (
        f"{plural(len(group.flags), 'row')} ({where}) on panel {neutralise_markup(group.panel)}, "
        f"severity {group.severity}, {score}, as {_format_row(group.flags[0], ' ')}"
    )


def _format_row(flag: Flag, between: str) -> str:
    """The id that `poisonwatch decide` takes, and where the row stands."""
    place = format_place(flag.example.source, flag.example.position)
    return f"{flag.example.id[:16]}{between}{place}"


def _format_sources(flags: Sequence[Flag]) -> str:
    counted = Counter(flag.example.source for flag in flags).most_common()
    named = []
    for source, n in counted[:MOST_SOURCES_NAMED]:
        name = format_place(source, 0).rpartition(":")[0]
        # Of a single source, all rows are: the number was said before.
        if len(counted) > 1:
            name += f" ({n})"
        named.append(name)
    text = ", ".join(named)
    if len(counted) > MOST_SOURCES_NAMED:
        text += f" and {len(counted) - MOST_SOURCES_NAMED} more"
    return text


def _format_remainder(count: int, noun: str) -> list[str]:
    """A line that counts what was left out, where anything was."""
    if count <= 0:
        return []
    return [f"  and {plural(count, f'more {noun}')}"]


def _describe_mutes(summary: Mapping[str, Any]) -> list[str]:
    """That rows of the audit are told to nobody, where any are."""
    held = sum(mute["rows"] for mute in summary.get("muted", ()))
    if not held:
        return []
    return [f"Muted, and told to nobody: {plural(held, 'flagged row')} of this audit."]


def _make_alert_key(summary: Mapping[str, Any], kind: str, ids: Sequence[str]) -> str:
    # From what the alert is about: one that is composed again after a crash has the same key, by
    # which a reader sees that it came twice.
    return compute_short_digest("\n".join([summary["audit_id"], kind, *sorted(ids)]))
