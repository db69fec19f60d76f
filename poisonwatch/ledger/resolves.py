"""Incidents that are over: services that page people are told when a message's rows are decided on.

Nothing is written when people decide: what is over follows from the rows' verdicts, whichever way
they were given, and a decision that is taken back in time takes it back. A delivery of kind
"resolve" says that a target was told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, exists, func, insert, or_, select

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


def list_pending_resolves(connection: Connection, name: str) -> list[PendingResolve]:
    """The incidents of an audit's name that are over, and not told to be, oldest first. One that a
    digest opened is over once all that it spoke of is.
    """
    told = deliveries.alias()
    is_told = exists().where(
        told.c.kind == RESOLVE_KIND,
        told.c.item == deliveries.c.item,
        told.c.target == deliveries.c.target,
    )
    is_open = exists().where(
        notified_rows.c.alert == alerts.c.alert,
        notified_rows.c.row == rows.c.row,
        rows.c.decided.is_(None),
    )
    key = func.coalesce(deliveries.c.sent_as, alerts.c.key)
    query = (
        select(deliveries.c.target, key, alerts.c.alert, alerts.c.audit, is_open)
        .join(alerts, alerts.c.alert == deliveries.c.item)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name, deliveries.c.kind == ALERT_KIND, _resolves(), ~is_told)
        # What was sent before attempts were told of went out under no key.
        .where(deliveries.c.delivered_at.is_not(None), deliveries.c.tried_at.is_not(None))
        .order_by(alerts.c.alert, deliveries.c.target)
    )
    incidents: dict[tuple[str, str], list[tuple[int, int]]] = {}
    open_ones = set()
    for target, opened_as, alert, audit, still_open in connection.execute(query).tuples():
        incidents.setdefault((target, opened_as), []).append((alert, audit))
        if still_open:
            open_ones.add((target, opened_as))
    found = []
    for incident, members in incidents.items():
        if incident not in open_ones:
            found.append(PendingResolve(*incident, tuple(members)))
    return found


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
