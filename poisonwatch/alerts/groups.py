"""The flagged rows of an audit as people are told of them: in groups, each with who is to be told,
and without what is muted.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from poisonwatch.alert_config import AlertConfig, RoutedRow, choose_alerts, find_owners
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.detection.result import AttributionResult
from poisonwatch.flags import SEVERITIES, Flag
from poisonwatch.ledger.mutes import MutableRow, Mute, find_mute


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """Flagged rows of one message or line, strongest flag first: a new cluster, or what is new in a
    known one or in none. `readers` are the places in `alerts` of those who are told.
    """

    flags: tuple[Flag, ...]
    evidence: ClusterEvidence | None
    new: bool
    readers: tuple[int, ...]

    @property
    def severity(self) -> str:
        gravest = max(self.flags, key=lambda flag: SEVERITIES.index(flag.severity))
        return gravest.severity

    @property
    def panel(self) -> str:
        if self.evidence is None:
            return self.flags[0].panel
        return self.evidence.panel

    @property
    def scored(self) -> list[Flag]:
        """Those whose score stands out: what a screen alone flagged has one that says nothing."""
        return [flag for flag in self.flags if flag.by_attribution]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(flag.example.id for flag in self.flags)

    @property
    def routed(self) -> list[RoutedRow]:
        """What decides who is told."""
        return [route_row(flag) for flag in self.flags]

    def find_mute(self, mutes: Sequence[Mute]) -> Mute | None:
        """The mute by which nobody is told of the group."""
        rows = [MutableRow(flag.example.id, flag.panel, flag.severity) for flag in self.flags]
        # Rows that were told of before say which group it is, too.
        group = () if self.evidence is None else self.evidence.example_ids
        return find_mute(mutes, rows, group)


def route_row(flag: Flag) -> RoutedRow:
    """What of a flagged row decides who is told of it."""
    return RoutedRow(flag.example.source, flag.panel, flag.severity)


def group_flags(
    found: AttributionResult, notified: Set[str], alerts: Sequence[AlertConfig]
) -> list[AlertGroup]:
    """What is new among the flags, gravest first, among equals the largest."""
    left = {flag.example.id: flag for flag in found.detection.flags}
    groups = []
    for cluster in found.evidence:
        new = []
        for id in cluster.example_ids:
            flag = left.pop(id)
            if id not in notified:
                new.append(flag)
        if new:
            whole = len(new) == len(cluster.example_ids)
            readers = _choose_readers(alerts, new, whole)
            groups.append(AlertGroup(tuple(new), cluster, whole, readers))
    # Rows in no cluster share a line with those of their panel that the same people are told of,
    # panels in alphabetical order.
    alike: dict[tuple[str, tuple[int, ...]], list[Flag]] = {}
    for flag in left.values():
        if flag.example.id not in notified:
            readers = _choose_readers(alerts, [flag], False)
            alike.setdefault((flag.panel, readers), []).append(flag)
    for (_, readers), flags in sorted(alike.items()):
        groups.append(AlertGroup(tuple(flags), None, new=False, readers=readers))
    return sorted(groups, key=lambda group: (-SEVERITIES.index(group.severity), -len(group.flags)))


def _choose_readers(
    alerts: Sequence[AlertConfig], flags: Sequence[Flag], new: bool
) -> tuple[int, ...]:
    return tuple(choose_alerts(alerts, [route_row(flag) for flag in flags], new))


def describe_routing(
    found: AttributionResult, alerts: Sequence[AlertConfig], mutes: Sequence[Mute]
) -> dict[str, Any]:
    """What a summary says of it: `muted`, the mutes that hold, each with how many flagged rows of
    the audit nobody is told of by it; `owners` of flagged rows, each with how many.
    """
    held: dict[int, int] = {}
    owned: dict[str, int] = {}
    for group in group_flags(found, frozenset(), alerts):
        mute = group.find_mute(mutes)
        if mute is not None:
            held[mute.number] = held.get(mute.number, 0) + len(group.flags)
        for owner in find_owners(alerts, group.routed):
            owned[owner] = owned.get(owner, 0) + len(group.flags)
    muted = [{**mute.describe(), "rows": held.get(mute.number, 0)} for mute in mutes]
    owners = [{"owner": owner, "rows": rows} for owner, rows in sorted(owned.items())]
    return {"muted": muted, "owners": owners}
