"""The outbox: what is still to be delivered to others, and which rows people were notified of.

A delivery goes to one target, and is of one of six kinds:

    audit     an account of an audit, to MLflow, Prefect or     item: audits.audit
              an OpenLineage server
    finding   what was discovered in its rows later, to MLflow  item: audits.audit
    alert     a message about flagged rows, to an alert target  item: alerts.alert
    resolve   that all of its rows are decided on (`resolves`)  item: alerts.alert
    notice    that audits do not come, to an alert target       item: notices.notice (`notices`)
    release   an account of a release, to OpenLineage           item: records.number

A delivery is put in within the transaction that makes its reason true: an audit's account with its
start, a message with the flags that it is about. So neither is ever without the other, and a crash
at any line leaves the delivery pending. It is marked as delivered at once after the attempt that
succeeded: a crash in between has it sent once more, an alert under the same key. What a target
refuses for days, while it takes other messages, is given up: that is written down, and told. Every
function works within the transaction of the connection that it is given; of an audit's name one
process at a time delivers (`Ledger.lock`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from poisonwatch.ledger.tables import alerts, audits, deliveries, notified_rows, rows

# kinds of deliveries
AUDIT_KIND, ALERT_KIND, RESOLVE_KIND, NOTICE_KIND = "audit", "alert", "resolve", "notice"
RELEASE_DELIVERY = "release"
FINDING_KIND = "finding"
MLFLOW, PREFECT, OPENLINEAGE = "mlflow", "prefect", "openlineage"  # targets of accounts
CLUSTER_ALERT, DIGEST_ALERT = "cluster", "digest"  # kinds of alerts
# Kinds of those that no audit composed (`reminders`): rows still to be decided on, and rows that
# were muted.
REMINDER, UNMUTED = "reminder", "unmuted"
LATER_ALERTS = (REMINDER, UNMUTED)


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
    """One thing for one target: `item` is the number of an audit, alert or notice, by `kind`."""

    kind: str
    item: int
    target: str


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """A message that a target has not received yet.

    `attempts` were made, the last `tried_at`; since `refused_at` the target refuses it. Times are
    as `ledger.now` writes them.
    """

    delivery: Delivery
    severity: str
    title: str
    body: str
    key: str = ""
    audit_id: str = ""
    created_at: str = ""
    attempts: int = 0
    tried_at: str | None = None
    refused_at: str | None = None

    @property
    def number(self) -> int:
        """The alert's number in the ledger."""
        return self.delivery.item

    @property
    def target(self) -> str:
        """The id of the target (`Target.id`)."""
        return self.delivery.target


def match_pending(kind: str) -> ColumnElement[bool]:
    """The deliveries of a kind that no attempt has succeeded for, without those given up."""
    return and_(
        deliveries.c.kind == kind,
        deliveries.c.delivered_at.is_(None),
        deliveries.c.given_up_at.is_(None),
    )


def enqueue(
    connection: Connection, kind: str, item: int, audit: int | None, targets: Iterable[str]
) -> None:
    """Put in a delivery of an audit, of an alert of it, or of a release (which no `audit` made),
    for each of these targets.
    """
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


def list_pending_records(connection: Connection, target: str) -> list[int]:
    """The numbers of the releases' records that a target has no account of yet, by number."""
    query = select(deliveries.c.item).where(
        match_pending(RELEASE_DELIVERY), deliveries.c.target == target
    )
    return list(connection.execute(query.order_by(deliveries.c.item)).scalars())


def list_pending_alerts(connection: Connection, name: str) -> list[PendingAlert]:
    """What the targets of an audit's name have not received yet, oldest first."""
    attempts = deliveries.c.attempts, deliveries.c.tried_at, deliveries.c.refused_at
    query = (
        select(alerts, deliveries.c.target, *attempts, audits.c.audit_id)
        .join(deliveries, deliveries.c.item == alerts.c.alert)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name, match_pending(ALERT_KIND))
        .order_by(alerts.c.alert, deliveries.c.target)
    )
    found = []
    for row in connection.execute(query):
        pending = PendingAlert(
            Delivery(ALERT_KIND, row.alert, row.target),
            row.severity,
            row.title,
            body=row.body,
            key=row.key,
            audit_id=row.audit_id,
            created_at=row.created_at,
            attempts=row.attempts,
            tried_at=row.tried_at,
            refused_at=row.refused_at,
        )
        found.append(pending)
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
    values = {"attempts": deliveries.c.attempts + 1, "delivered_at": delivered_at}
    connection.execute(update(deliveries).where(_match(delivery)).values(values))


def mark_sent(
    connection: Connection, delivery: Delivery, sent_at: str, sent_as: str | None = None
) -> None:
    """An attempt succeeded: in a message of another key where `sent_as` has one."""
    mark_delivered(connection, delivery, sent_at)
    values = {"tried_at": sent_at, "reason": None, "sent_as": sent_as}
    connection.execute(update(deliveries).where(_match(delivery)).values(values))


def mark_failed(
    connection: Connection,
    delivery: Delivery,
    tried_at: str,
    reason: str,
    *,
    refused: bool = False,
    give_up: bool = False,
) -> None:
    """An attempt failed for a `reason`, which holds no address: the target `refused` this very
    message, or took none. With `give_up` it is the last one.
    """
    mark_delivered(connection, delivery, None)
    values: dict[str, Any] = {"tried_at": tried_at, "reason": reason}
    if refused:
        values["refused_at"] = func.coalesce(deliveries.c.refused_at, tried_at)
    if give_up:
        values["given_up_at"] = tried_at
    connection.execute(update(deliveries).where(_match(delivery)).values(values))


def _match(delivery: Delivery) -> ColumnElement[bool]:
    return and_(
        deliveries.c.kind == delivery.kind,
        deliveries.c.item == delivery.item,
        deliveries.c.target == delivery.target,
    )


@dataclass(frozen=True, slots=True)
class OwedToTarget:
    """What a target has not received: `pending` alerts, the `oldest` of which was written then,
    and how many were `given_up`.
    """

    target: str
    pending: int
    oldest: str | None
    given_up: int


def count_owed_alerts(connection: Connection, name: str) -> list[OwedToTarget]:
    """What the alert targets of an audit's name have not received, by target; those that have all
    are left out.
    """
    is_pending = deliveries.c.given_up_at.is_(None)
    query = (
        select(
            deliveries.c.target,
            func.sum(case((is_pending, 1), else_=0)),
            func.min(case((is_pending, alerts.c.created_at))),
            func.sum(case((is_pending, 0), else_=1)),
        )
        .join(alerts, alerts.c.alert == deliveries.c.item)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name, deliveries.c.kind == ALERT_KIND)
        .where(deliveries.c.delivered_at.is_(None))
        .group_by(deliveries.c.target)
        .order_by(deliveries.c.target)
    )
    return [OwedToTarget(*row) for row in connection.execute(query).tuples()]


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
            # What the old address refused, or why, says nothing of the new one.
            fresh = {"attempts": 0, "tried_at": None, "refused_at": None, "reason": None}
            connection.execute(moved.values(target=heir, **fresh))
        connection.execute(delete(deliveries).where(of_gone))


def _find_targets(connection: Connection, which: ColumnElement[bool]) -> set[str]:
    query = select(deliveries.c.target).where(which).distinct()
    return set(connection.execute(query).scalars())


def _find_scheme(target: str) -> str:
    return target.split("-", 1)[0]
