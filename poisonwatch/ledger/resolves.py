"""Incidents that are over: services that page people are told when a message's rows are decided on,
and where a decision is taken back, that the incident is open again.

Nothing is written when people decide: what is over follows from the rows' verdicts, whichever way
they were given, and a decision that is taken back in time takes it back. A delivery of kind
"resolve" says that a target was told; it goes once the target was told that the incident is open
again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
)

from poisonwatch.ledger.outbox import ALERT_KIND, RESOLVE_KIND
from poisonwatch.ledger.tables import alerts, audits, deliveries, notified_rows, rows

# What the ids of targets begin with that can be told; "url" is an address that a variable spells,
# of a service that is known when it is opened.
RESOLVING_KINDS = ("jira", "opsgenie", "pagerduty", "url")


@dataclass(frozen=True, slots=True)
class PendingResolve:
    """An incident that is over at a target, by the `key` that it was opened under: of one alert, or
    of all that a digest spoke of, each with the audit that put it in (numbers in the ledger).
    """

    target: str
    key: str
    alerts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Reopening:
    """An incident that a target was told to be over, and some of whose rows (`open_rows`) are to be
    decided on again: by its `key`, with the message that it was opened with, or of a digest the
    last that it spoke of. `alerts` are those of PendingResolve.
    """

    target: str
    key: str
    alerts: tuple[tuple[int, int], ...]
    open_rows: int
    audit_id: str
    severity: str
    title: str
    body: str


def list_pending_resolves(connection: Connection, name: str) -> list[PendingResolve]:
    """The incidents of an audit's name that are over, and not told to be, oldest first. One that a
    digest opened is over once all that it spoke of is.
    """
    open_rows = _count_open_rows().label("open_rows")
    query = _select_incidents(name).add_columns(open_rows).where(~_is_told())
    incidents: dict[tuple[str, str], list[tuple[int, int]]] = {}
    open_ones = set()
    for row in connection.execute(query):
        incidents.setdefault((row.target, row.key), []).append((row.alert, row.audit))
        if row.open_rows:
            open_ones.add((row.target, row.key))
    found = []
    for incident, members in incidents.items():
        if incident not in open_ones:
            found.append(PendingResolve(*incident, tuple(members)))
    return found


def list_reopenings(connection: Connection, name: str) -> list[Reopening]:
    """The incidents of an audit's name that were told to be over, and are not any more, oldest
    first: a decision on some of their rows was taken back.
    """
    open_rows = _count_open_rows().label("open_rows")
    said = open_rows, audits.c.audit_id, alerts.c.severity, alerts.c.title, alerts.c.body
    query = _select_incidents(name).add_columns(*said).where(_is_told())
    found: dict[tuple[str, str], Reopening] = {}
    members: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in connection.execute(query):
        incident = row.target, row.key
        members.setdefault(incident, []).append((row.alert, row.audit))
        if not row.open_rows:
            continue
        before = found.get(incident)
        found[incident] = Reopening(
            *incident,
            alerts=(),
            open_rows=row.open_rows + (0 if before is None else before.open_rows),
            audit_id=row.audit_id,
            severity=row.severity,
            title=row.title,
            body=row.body,
        )
    return [replace(each, alerts=tuple(members[key])) for key, each in found.items()]


def _select_incidents(name: str) -> Select[Any]:
    """The alerts of an audit's name that arrived where incidents are opened, by what each was
    opened under, oldest first.
    """
    key = func.coalesce(deliveries.c.sent_as, alerts.c.key).label("key")
    return (
        select(deliveries.c.target, key, alerts.c.alert, alerts.c.audit)
        .join(alerts, alerts.c.alert == deliveries.c.item)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name, deliveries.c.kind == ALERT_KIND, _resolves())
        # What was sent before attempts were told of went out under no key.
        .where(deliveries.c.delivered_at.is_not(None), deliveries.c.tried_at.is_not(None))
        .order_by(alerts.c.alert, deliveries.c.target)
    )


def _is_told() -> ColumnElement[bool]:
    """Whether the target of an alert was told that it is over."""
    told = deliveries.alias()
    return exists().where(
        told.c.kind == RESOLVE_KIND,
        told.c.item == deliveries.c.item,
        told.c.target == deliveries.c.target,
    )


def _count_open_rows() -> ScalarSelect[int]:
    """How many rows of an alert nobody has decided on."""
    return (
        select(func.count())
        .select_from(notified_rows)
        .join(rows, rows.c.row == notified_rows.c.row)
        .where(notified_rows.c.alert == alerts.c.alert, rows.c.decided.is_(None))
        .correlate(alerts)
        .scalar_subquery()
    )


def _resolves() -> ColumnElement[bool]:
    starts = [deliveries.c.target.startswith(f"{kind}-") for kind in RESOLVING_KINDS]
    return or_(*starts)


def mark_resolved(connection: Connection, resolves: Sequence[PendingResolve], at: str) -> None:
    """The targets were told that these incidents are over."""
    values = []
    for resolve in resolves:
        for alert, audit in resolve.alerts:
            key = {"kind": RESOLVE_KIND, "item": alert, "target": resolve.target}
            values.append({**key, "audit": audit, "attempts": 1, "delivered_at": at})
    # SQLAlchemy takes an empty list for a row of defaults.
    if values:
        connection.execute(insert(deliveries), values)


def mark_reopened(connection: Connection, reopening: Reopening) -> None:
    """The target was told that this incident is open again: it is to be told once more when it is
    over.
    """
    numbers = [alert for alert, _ in reopening.alerts]
    told = (
        deliveries.c.kind == RESOLVE_KIND,
        deliveries.c.target == reopening.target,
        deliveries.c.item.in_(numbers),
    )
    connection.execute(delete(deliveries).where(*told))
