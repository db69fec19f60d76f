"""The outbox: what is still to be delivered to others, and which rows people were notified of.

A delivery goes to one target, and is of one of two kinds:

    audit     an account of an audit, to MLflow or Prefect      item: audits.audit
    alert     a message about flagged rows, to an alert target  item: alerts.alert

A delivery is put in within the transaction that makes its reason true: an audit's account with its
start, a message with the flags that it is about. So neither is ever without the other, and a crash
at any line leaves the delivery pending. It is marked as delivered at once after the attempt that
succeeded: a crash in between has it sent once more, an alert under the same key. Every function
works within the transaction of the connection that it is given; one process at a time delivers
(`Ledger.lock`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update

from poisonwatch.ledger.tables import alerts, audits, deliveries, notified_rows, rows

AUDIT_KIND, ALERT_KIND = "audit", "alert"  # kinds of deliveries
MLFLOW, PREFECT = "mlflow", "prefect"  # targets of audits' accounts
CLUSTER_ALERT, DIGEST_ALERT = "cluster", "digest"  # kinds of alerts


@dataclass(frozen=True, slots=True)
class Alert:
    """A message about flagged rows, and the `targets` that it goes to.

    `key` (16 hex digits) tells a repeated message from a new one; `example_ids` are the rows that
    count as notified of from now on.
    """

    key: str
    kind: str
    severity: str
    title: str
    body: str
    example_ids: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing for one target: `item` is the number of an audit or of an alert, by `kind`."""

    kind: str
    item: int
    target: str


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """A message that a target has not received yet."""

    delivery: Delivery
    severity: str
    title: str
    body: str

    @property
    def number(self) -> int:
        """The alert's number in the ledger."""
        return self.delivery.item

    @property
    def target(self) -> str:
        """The id of the target (`Target.id`)."""
        return self.delivery.target


def match_pending(kind: str) -> ColumnElement[bool]:
    """The deliveries of a kind that no attempt has succeeded for."""
    return and_(deliveries.c.kind == kind, deliveries.c.delivered_at.is_(None))


def enqueue(
    connection: Connection, kind: str, item: int, audit: int, targets: Iterable[str]
) -> None:
    """Put in a delivery of an audit, or of an alert of it, for each of these targets."""
    new = []
    for target in targets:
        key = {"kind": kind, "item": item, "target": target}
        new.append({**key, "audit": audit, "attempts": 0})
    # SQLAlchemy takes an empty list for a row of defaults.
    if new:
        connection.execute(insert(deliveries), new)


def enqueue_alerts(
    connection: Connection,
    audit: int,
    new: Sequence[Alert],
    row_numbers: Mapping[str, int],
    created_at: str,
) -> None:
    """Put in an audit's alerts for their targets; `row_numbers` are those of the rows by example
    id.
    """
    for alert in new:
        values = {
            "audit": audit,
            "key": alert.key,
            "kind": alert.kind,
            "severity": alert.severity,
            "title": alert.title,
            "body": alert.body,
            "created_at": created_at,
        }
        stored = insert(alerts).values(values).returning(alerts.c.alert)
        number = connection.execute(stored).scalar_one()
        notified = [{"alert": number, "row": row_numbers[id]} for id in alert.example_ids]
        connection.execute(insert(notified_rows), notified)
        enqueue(connection, ALERT_KIND, number, audit=audit, targets=alert.targets)


def pending(connection: Connection, kind: str, audits: Sequence[int]) -> list[Delivery]:
    """The pending deliveries of a kind that these audits have put in, by item and target."""
    query = (
        select(deliveries.c.kind, deliveries.c.item, deliveries.c.target)
        .where(match_pending(kind), deliveries.c.audit.in_(audits))
        .order_by(deliveries.c.item, deliveries.c.target)
    )
    return [Delivery(*row) for row in connection.execute(query).tuples()]


def list_pending_alerts(connection: Connection, name: str) -> list[PendingAlert]:
    """What the targets of an audit's name have not received yet, oldest first."""
    query = (
        select(alerts, deliveries.c.target)
        .join(deliveries, deliveries.c.item == alerts.c.alert)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name, match_pending(ALERT_KIND))
        .order_by(alerts.c.alert, deliveries.c.target)
    )
    found = []
    for row in connection.execute(query):
        delivery = Delivery(ALERT_KIND, row.alert, row.target)
        found.append(PendingAlert(delivery, row.severity, row.title, body=row.body))
    return found


def list_notified_ids(connection: Connection, name: str) -> set[str]:
    """Example ids of the rows that alerts of an audit's name were about."""
    about = exists().where(
        notified_rows.c.row == rows.c.row,
        notified_rows.c.alert == alerts.c.alert,
        alerts.c.audit == audits.c.audit,
        audits.c.name == name,
    )
    return {bytes(id).hex() for id in connection.execute(select(rows.c.id).where(about)).scalars()}


def mark_delivered(connection: Connection, delivery: Delivery, delivered_at: str | None) -> None:
    """Count an attempt at a delivery: `delivered_at` is when it succeeded, None where it failed.

    A delivery that was never put in is none: audits of a ledger from before there was an outbox
    have none.
    """
    which = (
        deliveries.c.kind == delivery.kind,
        deliveries.c.item == delivery.item,
        deliveries.c.target == delivery.target,
    )
    values = {"attempts": deliveries.c.attempts + 1, "delivered_at": delivered_at}
    connection.execute(update(deliveries).where(*which).values(values))


def retarget(connection: Connection, name: str, targets: Sequence[str]) -> None:
    """Clear the pending alerts of targets that an audit file does not name any more.

    A target of the same kind that nothing was tried on yet takes them over: most often it is the
    old one with its address mended. Otherwise nobody is left to be notified, and they are dropped.
    """
    of_name = select(audits.c.audit).where(audits.c.name == name)
    ours = (deliveries.c.kind == ALERT_KIND) & deliveries.c.audit.in_(of_name)
    tried = (deliveries.c.attempts > 0) | deliveries.c.delivered_at.is_not(None)
    known = _find_targets(connection, ours & tried)
    left = match_pending(ALERT_KIND) & ours
    untried = [target for target in targets if target not in known]
    for gone in sorted(_find_targets(connection, left) - set(targets)):
        of_gone = left & (deliveries.c.target == gone)
        same_scheme = (target for target in untried if _find_scheme(target) == _find_scheme(gone))
        heir = next(same_scheme, None)
        if heir is not None:
            untried.remove(heir)
            # A message that the heir is to get anyway stays with the one that is gone, and is
            # dropped with it.
            has = select(deliveries.c.item).where(
                deliveries.c.kind == ALERT_KIND, deliveries.c.target == heir
            )
            moved = update(deliveries).where(of_gone, deliveries.c.item.not_in(has))
            connection.execute(moved.values(target=heir, attempts=0))
        connection.execute(delete(deliveries).where(of_gone))


def _find_targets(connection: Connection, which: ColumnElement[bool]) -> set[str]:
    query = select(deliveries.c.target).where(which).distinct()
    return set(connection.execute(query).scalars())


def _find_scheme(target: str) -> str:
    return target.split("-", 1)[0]
