"""Rows that nobody has decided on are told of again: in one digest, oldest first, once an interval
(`remind`) at most, to those who were told of them before. And rows that a mute held back are told
of once it has ended.

What is muted is not told of, nor what is still on its way to a target.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from poisonwatch.alert_config import RoutedRow, choose_alerts, find_owners, parse_interval
from poisonwatch.alerts.markup import format_place, neutralise_markup
from poisonwatch.alerts.targets import Target, compute_short_digest, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import Mute, list_mutes
from poisonwatch.ledger.outbox import REMINDER, UNMUTED, Alert
from poisonwatch.ledger.records import lock_chain
from poisonwatch.ledger.reminders import (
    OpenGroup,
    OpenRow,
    add_reminders,
    list_last_reminders,
    list_open_groups,
    list_tellings,
)
from poisonwatch.ledger.transactions import retried
from poisonwatch.reports.links import make_dashboard_url
from poisonwatch.text.words import plural

MOST_GROUPS_NAMED = 15


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known when reminders are written, `at` a time."""

    targets: Sequence[Target]
    config: AuditConfig
    at: datetime
    active: Sequence[Mute]
    ended: Sequence[Mute]
    told: Mapping[int, Mapping[str, str | None]]
    reminded: Mapping[str, str]

    @property
    def interval(self) -> timedelta:
        return parse_interval(self.config.remind)

    def is_over(self, since: str) -> bool:
        """Whether an interval has passed since a time, where there is one."""
        return bool(self.interval) and datetime.fromisoformat(since) + self.interval <= self.at


@retried
def write_reminders(ledger: Ledger, config: AuditConfig, at: datetime | None = None) -> int:
    """Put the reminders that are due into the outbox: how many. `at` is what time it is (None:
    now). Raises what the ledger's signer raises.
    """
    targets = list_targets(config)
    if not targets:
        return 0
    moment = at or datetime.now(UTC)
    created_at = moment.isoformat(timespec="seconds")
    with ledger.write() as connection:
        lock_chain(connection)
        mutes = list_mutes(connection, config.name)
        known = _Known(
            targets=targets,
            config=config,
            at=moment,
            active=[mute for mute in mutes if mute.is_active(moment)],
            ended=[mute for mute in mutes if not mute.is_active(moment)],
            told=list_tellings(connection, config.name),
            reminded=list_last_reminders(connection, config.name),
        )
        due: dict[tuple[str, str], list[OpenGroup]] = {}
        for group in list_open_groups(connection, config.name):
            if group.find_mute(known.active) is None:
                for why, rows in _choose_due(group, known).items():
                    due.setdefault(why, []).append(replace(group, rows=tuple(rows)))
        new = _compose_all(due, known)
        numbers = {}
        for groups in due.values():
            numbers.update({row.example_id: row.number for group in groups for row in group.rows})
        if new:
            signer = ledger.signer
            add_reminders(connection, config.name, new, numbers, created_at, signer)
    return len(new)


def _choose_due(group: OpenGroup, known: _Known) -> dict[tuple[str, str], list[OpenRow]]:
    """The rows of a group that are told of now, by the kind of message and the target's id."""
    due: dict[tuple[str, str], list[OpenRow]] = {}
    for row in group.rows:
        told = known.told.get(row.number, {})
        for target in known.targets:
            first = told.get(target.id)
            if first is not None and known.is_over(first) and not _is_reminded(target, known):
                due.setdefault((REMINDER, target.id), []).append(row)
    untold = [row for row in group.rows if not _is_told(row, known)]
    if untold:
        kind = None
        if group.find_past_mute(known.ended) is not None:
            kind = UNMUTED
        elif known.is_over(untold[0].flagged_at):
            kind = REMINDER
        for target in _choose_readers(untold, known):
            if kind == UNMUTED or (kind is not None and not _is_reminded(target, known)):
                due.setdefault((kind, target.id), []).extend(untold)
    return due


def _is_reminded(target: Target, known: _Known) -> bool:
    """Whether a target was sent a reminder within the last interval."""
    last = known.reminded.get(target.id)
    return last is not None and not known.is_over(last)


def _is_told(row: OpenRow, known: _Known) -> bool:
    """Whether a target of now was told of a row, or is about to be."""
    told = known.told.get(row.number, {})
    return any(target.id in told for target in known.targets)


def _choose_readers(rows: Iterable[OpenRow], known: _Known) -> list[Target]:
    """Who is told of rows that nobody was told of."""
    routed = [_route(row) for row in rows]
    places = choose_alerts(known.config.alerts, routed, new=False)
    return [known.targets[place] for place in places]


def _route(row: OpenRow) -> RoutedRow:
    return RoutedRow(row.source, row.panel, row.severity)


def _compose_all(due: Mapping[tuple[str, str], list[OpenGroup]], known: _Known) -> list[Alert]:
    """The messages; targets that are told of the same rows share one."""
    alike: dict[tuple[str, tuple[str, ...]], tuple[list[OpenGroup], list[str]]] = {}
    for (kind, target), groups in due.items():
        ids = tuple(row.example_id for group in groups for row in group.rows)
        alike.setdefault((kind, ids), (groups, []))[1].append(target)
    return [
        _compose(kind, groups, targets, known) for (kind, _), (groups, targets) in alike.items()
    ]


def _compose(kind: str, groups: Sequence[OpenGroup], targets: list[str], known: _Known) -> Alert:
    ids = tuple(row.example_id for group in groups for row in group.rows)
    name, count = neutralise_markup(known.config.name), plural(len(ids), "flagged row")
    severity = max((group.severity for group in groups), key=SEVERITIES.index)
    oldest = datetime.fromisoformat(groups[0].rows[0].flagged_at)
    days = plural(max((known.at - oldest).days, 0), "day")
    title = f"Poisonwatch: {count} of {name} undecided, the oldest for {days}"
    lines = ["Nobody has decided on these rows, which stay in quarantine; oldest first:"]
    if kind == UNMUTED:
        title = f"Poisonwatch: {count} of {name} no longer muted"
        lines = ["These rows were flagged while they were muted, and nobody was told of them:"]
    for group in groups[:MOST_GROUPS_NAMED]:
        lines.append(f"  {_format_group(group, known)}")
    left = sum(len(group.rows) for group in groups[MOST_GROUPS_NAMED:])
    if left:
        lines.append(f"  and {plural(left, 'more row')}")
    first = groups[0].rows[0]
    named = f"{first.audit_id}/{groups[0].key}"
    when = known.at.isoformat(timespec="seconds")
    key = compute_short_digest("\n".join([kind, when, *sorted(targets), *sorted(ids)]))
    lines.append(f"To decide: poisonwatch decide AUDIT.yaml {first.example_id[:16]} benign")
    lines.append(f"To hear no more of a group: poisonwatch mute AUDIT.yaml {named} --until 14d")
    page = make_dashboard_url(known.config, first.audit_id)
    if page is not None:
        lines.append(f"Dashboard, the oldest of them: {page}")
    lines.append(f"Alert {key}")
    return Alert(
        key=key,
        kind=kind,
        severity=severity,
        title=f"{title} (severity {severity})",
        body="\n".join(lines),
        example_ids=ids,
        targets=tuple(targets),
    )


def _format_group(group: OpenGroup, known: _Known) -> str:
    row = group.rows[0]
    place = format_place(row.source, row.position)
    line = (
        f"{row.flagged_at[:10]}: {plural(len(group.rows), 'row')} on panel "
        f"{neutralise_markup(row.panel)}, severity {group.severity}, as {row.example_id[:16]} "
        f"{place}"
    )
    owners = find_owners(known.config.alerts, map(_route, group.rows))
    if owners:
        line += f", owner {', '.join(map(neutralise_markup, owners))}"
    if group.assignees:
        line += f", assigned to {', '.join(map(neutralise_markup, group.assignees))}"
    return line
