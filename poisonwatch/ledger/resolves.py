"""Incidents that are over: services that page people are told when a message's rows are decided on.

A delivery of kind "resolve" is put in within the transaction of the last decision on an alert's
rows, and taken back by one that leaves a row undecided again. Whoever delivers next sends it.
"""

from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
)

from poisonwatch.ledger.outbox import ALERT_KIND, RESOLVE_KIND, Delivery, match_pending
from poisonwatch.ledger.tables import alerts, audits, deliveries, notified_rows, rows

# What the ids of targets begin with that can be told; "url" is an address that a variable spells,
# of a service that is known when it is opened.
RESOLVING_KINDS = ("jira", "opsgenie", "pagerduty", "url")


@dataclass(frozen=True, slots=True)
class PendingResolve:
    """An incident that is over at a target, by the `key` that it was opened under: the deliveries
    that say so, of one alert or of all that a digest spoke of.
    """

    target: str
    key: str
    deliveries: tuple[Delivery, ...]


def settle_resolves(connection: Connection, row: int) -> None:
    """After a decision on a row: what is to be told, or not any more, of the alerts about it."""
    about = select(notified_rows.c.alert).where(notified_rows.c.row == row)
    of_alert = notified_rows.c.alert == alerts.c.alert
    undecided = exists().where(
        of_alert, notified_rows.c.row == rows.c.row, rows.c.decided.is_(None)
    )
    still_open = select(alerts.c.alert).where(alerts.c.alert.in_(about), undecided)
    stale = match_pending(RESOLVE_KIND) & deliveries.c.item.in_(still_open)
    connection.execute(delete(deliveries).where(stale))
    known = deliveries.alias()
    is_known = exists().where(
        known.c.kind == RESOLVE_KIND,
        known.c.item == deliveries.c.item,
        known.c.target == deliveries.c.target,
    )
    sent = deliveries.c.item, deliveries.c.target, deliveries.c.audit
    new = (
        select(literal(RESOLVE_KIND), *sent, literal(0))
        .join(alerts, alerts.c.alert == deliveries.c.item)
        .where(deliveries.c.kind == ALERT_KIND, deliveries.c.item.in_(about))
        .where(deliveries.c.given_up_at.is_(None), _resolves(), ~undecided, ~is_known)
    )
    columns = ["kind", "item", "target", "audit", "attempts"]
    connection.execute(insert(deliveries).from_select(columns, new))


def _resolves() -> ColumnElement[bool]:
    starts = [deliveries.c.target.startswith(f"{kind}-") for kind in RESOLVING_KINDS]
    return or_(*starts)


def list_pending_resolves(connection: Connection, name: str) -> list[PendingResolve]:
    """The incidents of an audit's name that are over and were opened at their target, oldest
    first. One that a digest opened is over once all that it spoke of is.
    """
    sent = deliveries.alias()
    key = func.coalesce(sent.c.sent_as, alerts.c.key)
    query = (
        select(deliveries.c.item, deliveries.c.target, key.label("key"))
        .join(alerts, alerts.c.alert == deliveries.c.item)
        .join(audits, audits.c.audit == alerts.c.audit)
        .join(sent, and_(sent.c.item == deliveries.c.item, sent.c.target == deliveries.c.target))
        .where(sent.c.kind == ALERT_KIND, sent.c.delivered_at.is_not(None))
        .where(audits.c.name == name, match_pending(RESOLVE_KIND))
        .order_by(deliveries.c.item, deliveries.c.target)
    )
    over: dict[tuple[str, str], list[Delivery]] = {}
    for item, target, opened_as in connection.execute(query).tuples():
        over.setdefault((target, opened_as), []).append(Delivery(RESOLVE_KIND, item, target))
    found = []
    for (target, opened_as), parts in over.items():
        if not _count_open(connection, target, opened_as):
            found.append(PendingResolve(target, opened_as, tuple(parts)))
    return found


def _count_open(connection: Connection, target: str, sent_as: str) -> int:
    """How many alerts a digest spoke of that are not over."""
    other = deliveries.alias()
    is_over = exists().where(
        other.c.kind == RESOLVE_KIND,
        other.c.item == deliveries.c.item,
        other.c.target == deliveries.c.target,
    )
    left = select(func.count()).where(
        deliveries.c.kind == ALERT_KIND,
        deliveries.c.target == target,
        deliveries.c.sent_as == sent_as,
        ~is_over,
    )
    return int(connection.execute(left).scalar_one())


def drop_resolves(connection: Connection, name: str, targets: list[str]) -> None:
    """Forget what targets would be told that an audit file does not name any more."""
    of_name = select(audits.c.audit).where(audits.c.name == name)
    gone = deliveries.c.audit.in_(of_name) & deliveries.c.target.not_in(targets)
    connection.execute(delete(deliveries).where(match_pending(RESOLVE_KIND), gone))
