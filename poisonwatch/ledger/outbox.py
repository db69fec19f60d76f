"""The outbox: what people are still to be told, and which rows they were told of.

Messages are put in with the flags themselves, in one transaction, so that neither is ever without
the other. Each is owed to its targets until it is marked as delivered, at once after each delivery:
a crash in between has it sent once more, under the same key. Every function works within the
transaction of the connection that it is given; one process at a time delivers (`Ledger.alone`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, insert, select, update

from poisonwatch.ledger.tables import alerts, audits, deliveries, notified_rows, rows

CLUSTER_ALERT, DIGEST_ALERT = "cluster", "digest"  # kinds of alerts


@dataclass(frozen=True, slots=True)
class Alert:
    """A message about flagged rows, and the `targets` that it goes to.

    `key` (16 hex digits) tells a repeated message from a new one; `example_ids` are the rows that
    count as told of from now on.
    """

    key: str
    kind: str
    severity: str
    title: str
    body: str
    example_ids: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """A message, by its `number`, that a target has not received yet."""

    number: int
    target: str
    severity: str
    title: str
    body: str


def enqueue(
    connection: Connection, audit: int, new: Sequence[Alert], numbers: Mapping[str, int], at: str
) -> None:
    """Owe an audit's alerts to their targets from the time `at` on; `numbers` are those of the rows
    by example id.
    """
    for alert in new:
        values = {
            name: getattr(alert, name) for name in ("key", "kind", "severity", "title", "body")
        }
        stored = (
            insert(alerts)
            .values(values | {"audit": audit, "created_at": at})
            .returning(alerts.c.alert)
        )
        number = connection.execute(stored).scalar_one()
        connection.execute(
            insert(notified_rows),
            [{"alert": number, "row": numbers[id]} for id in alert.example_ids],
        )
        connection.execute(
            insert(deliveries),
            [{"alert": number, "target": target, "attempts": 0} for target in alert.targets],
        )


def list_notified_ids(connection: Connection, name: str) -> set[str]:
    """Example ids of the rows that an audit's alerts told of before."""
    about = exists().where(
        notified_rows.c.row == rows.c.row,
        notified_rows.c.alert == alerts.c.alert,
        alerts.c.audit == audits.c.audit,
        audits.c.name == name,
    )
    return {bytes(id).hex() for id in connection.execute(select(rows.c.id).where(about)).scalars()}


def list_pending_alerts(connection: Connection, name: str) -> list[PendingAlert]:
    """What an audit's targets have not received yet, oldest first."""
    columns = alerts.c.alert, deliveries.c.target, alerts.c.severity, alerts.c.title, alerts.c.body
    query = (
        select(*columns)
        .join_from(alerts, deliveries)
        .join(audits, audits.c.audit == alerts.c.audit)
    )
    query = query.where(audits.c.name == name, deliveries.c.delivered_at.is_(None)).order_by(
        alerts.c.alert, deliveries.c.target
    )
    return [PendingAlert(*row) for row in connection.execute(query).tuples()]


def mark_delivered(connection: Connection, message: PendingAlert, delivered_at: str | None) -> None:
    """One attempt was made to deliver a message; `delivered_at` is when it was received, None where
    it was not.
    """
    which = (deliveries.c.alert == message.number) & (deliveries.c.target == message.target)
    values = {"attempts": deliveries.c.attempts + 1, "delivered_at": delivered_at}
    connection.execute(update(deliveries).where(which).values(values))


def retarget(connection: Connection, name: str, targets: Sequence[str]) -> None:
    """Settle what an audit owes to targets that are none any more.

    A target of the same kind that nothing was tried on yet takes it over: most often it is the old
    one with its address mended. Otherwise nobody is left to be told, and it is dropped.
    """
    of_audit = (
        select(alerts.c.alert)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name)
    )
    ours = deliveries.c.alert.in_(of_audit)
    tried = (deliveries.c.attempts > 0) | deliveries.c.delivered_at.is_not(None)
    known = set(
        connection.execute(select(deliveries.c.target).where(ours, tried).distinct()).scalars()
    )
    open_now = (
        select(deliveries.c.target).where(ours, deliveries.c.delivered_at.is_(None)).distinct()
    )
    untried = [target for target in targets if target not in known]
    for gone in sorted(set(connection.execute(open_now).scalars()) - set(targets)):
        left = (deliveries.c.target == gone) & deliveries.c.delivered_at.is_(None) & ours
        heir = next(
            (target for target in untried if _find_scheme(target) == _find_scheme(gone)), None
        )
        if heir is not None:
            untried.remove(heir)
            has = select(deliveries.c.alert).where(deliveries.c.target == heir)
            connection.execute(
                update(deliveries)
                .where(left, deliveries.c.alert.not_in(has))
                .values(target=heir, attempts=0)
            )
        connection.execute(delete(deliveries).where(left))


def _find_scheme(target: str) -> str:
    return target.split("-", 1)[0]


MLFLOW, PREFECT = "mlflow", "prefect"
