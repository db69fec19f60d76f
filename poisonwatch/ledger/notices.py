"""Notices: that audits of a name do not come, and that they are back, once each a silence; and that
a trained model moved, once a checkpoint.

They go through the outbox (`outbox`), though no audit put them in, and whoever is alive sends them:
the one that an audit holds the ledger's lock for may be the one that hangs. So a sender claims each
delivery for a while instead, and no two send the same. One that fails waits, longer each time.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Row, case, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from poisonwatch.ledger.notice_tables import notices
from poisonwatch.ledger.outbox import (
    NOTICE_KIND,
    Delivery,
    mark_failed,
    mark_sent,
    match_pending,
)
from poisonwatch.ledger.tables import deliveries

OVERDUE, BACK = "overdue", "back"  # kinds of notices, of silences
MOVED = "moved"  # of trained models
CLAIM_LASTS = timedelta(minutes=5)  # that a sender has; one that died has lost it then
FIRST_WAIT = timedelta(minutes=1)  # after an attempt that failed; twice as long each time
LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message about the audits of a `name`, or a model that was trained for it; `key` (16 hex
    digits) is of this silence, or this checkpoint, alone.
    """

    name: str
    kind: str
    key: str
    severity: str
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """The `number` of a notice, its kind and when it was made."""

    number: int
    kind: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedNotice:
    """A notice that its claimer sends now; `silence` is the key of the notice whose end this one
    tells, None where it tells none.
    """

    delivery: Delivery
    kind: str
    key: str
    severity: str
    title: str
    body: str
    silence: str | None


def find_last_notice(connection: Connection, name: str) -> StoredNotice | None:
    """The last notice of a name's silences: where it is of kind OVERDUE, the last was told of."""
    query = (
        select(notices.c.notice, notices.c.kind, notices.c.created_at)
        .where(notices.c.name == name, _is_of_silence())
        .order_by(notices.c.notice.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    return StoredNotice(found.notice, found.kind, datetime.fromisoformat(found.created_at))


def add_notice(connection: Connection, notice: Notice, at: datetime) -> int | None:
    """Put in a notice: its number; None where another process has put it in at this moment."""
    values = {
        "name": notice.name,
        "kind": notice.kind,
        "key": notice.key,
        "severity": notice.severity,
        "title": notice.title,
        "body": notice.body,
        "created_at": at.isoformat(timespec="seconds"),
    }
    try:
        with connection.begin_nested():
            added = insert(notices).values(values).returning(notices.c.notice)
            return int(connection.execute(added).scalar_one())
    except IntegrityError:
        return None


def address_notice(connection: Connection, number: int, targets: Iterable[str]) -> None:
    """Have a notice delivered to each of these targets that it does not go, or went, to already."""
    has = set(list_targets_of(connection, number))
    new = []
    for target in dict.fromkeys(targets):
        if target not in has:
            key = {"kind": NOTICE_KIND, "item": number, "target": target}
            new.append({**key, "audit": None, "attempts": 0})
    if new:
        connection.execute(insert(deliveries), new)


def list_targets_of(connection: Connection, number: int) -> list[str]:
    """The targets that a notice goes, or went, to."""
    of_notice = (deliveries.c.kind == NOTICE_KIND) & (deliveries.c.item == number)
    query = select(deliveries.c.target).where(of_notice).order_by(deliveries.c.target)
    return list(connection.execute(query).scalars())


def list_targets_of_silence(connection: Connection, name: str, number: int) -> list[str]:
    """The targets of the last notice of kind OVERDUE of a name before the notice of this number."""
    silence = _find_silence(connection, name, number)
    if silence is None:
        return []
    return list_targets_of(connection, silence.notice)


def _find_silence(connection: Connection, name: str, number: int) -> Row[tuple[int, str]] | None:
    before = (notices.c.name == name) & (notices.c.notice < number) & (notices.c.kind == OVERDUE)
    query = select(notices.c.notice, notices.c.key).where(before)
    return connection.execute(query.order_by(notices.c.notice.desc()).limit(1)).one_or_none()


def drop_earlier(connection: Connection, name: str, number: int, targets: Collection[str]) -> None:
    """Do not send the notices of a name's silences before this one any more, to those of these
    targets that have not got them: the last says it all.
    """
    of_silences = (notices.c.name == name, notices.c.notice < number, _is_of_silence())
    earlier = select(notices.c.notice).where(*of_silences)
    which = (
        match_pending(NOTICE_KIND),
        deliveries.c.item.in_(earlier),
        deliveries.c.target.in_(targets),
    )
    connection.execute(delete(deliveries).where(*which))


def _is_of_silence() -> ColumnElement[bool]:
    return notices.c.kind.in_((OVERDUE, BACK))


def is_notice_due(connection: Connection, targets: Collection[str], now: datetime) -> bool:
    """Whether one of these targets is to get a notice now."""
    which = match_pending(NOTICE_KIND), _may_be_tried(now), deliveries.c.target.in_(targets)
    query = select(deliveries.c.item).where(*which).limit(1)
    return connection.execute(query).first() is not None


def claim_notice(
    connection: Connection, targets: Collection[str], now: datetime
) -> ClaimedNotice | None:
    """The oldest notice that one of these targets is to get now: nobody else sends it for
    CLAIM_LASTS. None where there is none.
    """
    query = (
        select(notices, deliveries.c.target)
        .join(deliveries, deliveries.c.item == notices.c.notice)
        .where(match_pending(NOTICE_KIND), _may_be_tried(now), deliveries.c.target.in_(targets))
        .order_by(notices.c.notice, deliveries.c.target)
    )
    for row in connection.execute(query).all():
        delivery = Delivery(NOTICE_KIND, row.notice, row.target)
        claimed = (
            update(deliveries)
            .where(*_match(delivery), deliveries.c.delivered_at.is_(None), _may_be_tried(now))
            .values(not_before=_write_time(now + CLAIM_LASTS))
        )
        # Where another process claimed it meanwhile, it is not changed once more.
        if connection.execute(claimed).rowcount:
            silence = None
            if row.kind == BACK:
                silence = _find_silence(connection, row.name, row.notice)
            return ClaimedNotice(
                delivery=delivery,
                kind=row.kind,
                key=row.key,
                severity=row.severity,
                title=row.title,
                body=row.body,
                silence=silence.key if silence is not None else None,
            )
    return None


def settle_notice(
    connection: Connection, delivery: Delivery, now: datetime, reason: str | None = None
) -> None:
    """Count an attempt at a notice that was claimed. Where it did not arrive, for a `reason` that
    holds no address, it waits.
    """
    if reason is None:
        mark_sent(connection, delivery, _write_time(now))
    else:
        mark_failed(connection, delivery, _write_time(now), reason)
    tried = select(deliveries.c.attempts).where(*_match(delivery))
    attempts = connection.execute(tried).scalar_one_or_none() or 1
    wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 10), LONGEST_WAIT)
    later = case((deliveries.c.delivered_at.is_(None), _write_time(now + wait)), else_=None)
    connection.execute(update(deliveries).where(*_match(delivery)).values(not_before=later))


def _may_be_tried(now: datetime) -> ColumnElement[bool]:
    is_free = deliveries.c.not_before.is_(None)
    return or_(is_free, deliveries.c.not_before <= _write_time(now))


def _match(delivery: Delivery) -> tuple[ColumnElement[bool], ...]:
    return (
        deliveries.c.kind == delivery.kind,
        deliveries.c.item == delivery.item,
        deliveries.c.target == delivery.target,
    )


def _write_time(moment: datetime) -> str:
    """In one form, since times are compared as text."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")
