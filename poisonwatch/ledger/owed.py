"""What is owed to whom: the deliveries of a name that no attempt has succeeded for, by target."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from poisonwatch.attestation.statement import parse_statement
from poisonwatch.errors import InputError
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.mutes import list_active_mutes
from poisonwatch.ledger.notice_tables import notices
from poisonwatch.ledger.notices import MOVED
from poisonwatch.ledger.outbox import (
    ALERT_KIND,
    AUDIT_KIND,
    FINDING_KIND,
    NOTICE_KIND,
    RELEASE_DELIVERY,
    match_pending,
)
from poisonwatch.ledger.reminders import list_held_alerts
from poisonwatch.ledger.tables import alerts, audits, deliveries, flags, rows

# What is owed for so long was tried, or should have been: an audit tells of itself at its end.
SOON = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Owed:
    """How many deliveries of a kind a target is owed, the most attempts at one of them, since when
    the oldest is, and why an attempt failed (without any address; None: nobody knows).
    """

    kind: str
    target: str
    count: int
    attempts: int
    since: str
    reason: str | None = None

    def is_failing(self, now: datetime) -> bool:
        """Whether something keeps them from arriving."""
        return self.attempts > 0 or self.since < (now - SOON).isoformat(timespec="seconds")


def list_owed(connection: Connection, name: str, targets: Collection[str]) -> list[Owed]:
    """What is owed of the audits of a name, by kind and target; of notices, what these targets are.
    Accounts of an audit that is at work are left out.
    """
    # What is muted waits, and is owed to nobody meanwhile.
    held = list_held_alerts(connection, name, list_active_mutes(connection, name))
    count, attempts = func.count(), func.max(deliveries.c.attempts)
    target, reason = deliveries.c.target, func.max(deliveries.c.reason)
    ended = func.coalesce(audits.c.finished_at, audits.c.started_at)
    of_audits = (
        select(target, count, attempts, func.min(ended), reason)
        .join(audits, audits.c.audit == deliveries.c.item)
        .where(match_pending(AUDIT_KIND), audits.c.name == name, audits.c.state != "running")
    )
    of_findings = (
        select(target, count, attempts, func.min(ended), reason)
        .join(audits, audits.c.audit == deliveries.c.item)
        .where(match_pending(FINDING_KIND), audits.c.name == name)
    )
    of_alerts = (
        select(target, count, attempts, func.min(alerts.c.created_at), reason)
        .join(alerts, alerts.c.alert == deliveries.c.item)
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(match_pending(ALERT_KIND), audits.c.name == name, alerts.c.alert.not_in(held))
    )
    of_notices = (
        select(target, count, attempts, func.min(notices.c.created_at), reason)
        .join(notices, notices.c.notice == deliveries.c.item)
        .where(match_pending(NOTICE_KIND), target.in_(targets))
    )
    found = []
    kinds = {
        AUDIT_KIND: of_audits,
        FINDING_KIND: of_findings,
        ALERT_KIND: of_alerts,
        NOTICE_KIND: of_notices,
    }
    for kind, query in kinds.items():
        by_target = query.group_by(target).order_by(target)
        found += [Owed(kind, *row) for row in connection.execute(by_target).tuples()]
    return found + list(_list_owed_releases(connection, name))


def count_untold_movements(connection: Connection, name: str, targets: Collection[str]) -> int:
    """How many trained models of a name moved without all of these targets having heard of it."""
    counted = (
        select(func.count(notices.c.notice.distinct()))
        .join(deliveries, deliveries.c.item == notices.c.notice)
        .where(match_pending(NOTICE_KIND), deliveries.c.target.in_(targets))
        .where(notices.c.name == name, notices.c.kind == MOVED)
    )
    return int(connection.execute(counted).scalar_one())


def _list_owed_releases(connection: Connection, name: str) -> Iterator[Owed]:
    """What is owed of the releases of a name, by target: which name one is of stands in its
    statement. One whose statement does not say is everybody's.
    """
    query = (
        select(deliveries, records.c.statement, records.c.recorded_at)
        .join(records, records.c.number == deliveries.c.item)
        .where(match_pending(RELEASE_DELIVERY))
        .order_by(records.c.number)
    )
    by_target: dict[str, Owed] = {}
    for row in connection.execute(query):
        if _read_name(row.statement) not in (None, name):
            continue
        owed = by_target.setdefault(
            row.target, Owed(RELEASE_DELIVERY, row.target, 0, 0, row.recorded_at)
        )
        by_target[row.target] = replace(
            owed,
            count=owed.count + 1,
            attempts=max(owed.attempts, row.attempts),
            reason=row.reason or owed.reason,
        )
    yield from (by_target[target] for target in sorted(by_target))


def _read_name(text: str) -> str | None:
    """The audit's name in the statement of a release; None where it does not say."""
    try:
        said = parse_statement(text).predicate.get("name")
    except InputError:
        return None
    return None if said is None else str(said)


def count_undecided_rows(connection: Connection, name: str) -> int:
    """How many rows that audits of a name flagged nobody has decided on."""
    flagged = (
        select(flags.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.name == name)
    )
    counted = select(func.count()).select_from(rows).where(IS_UNDECIDED, rows.c.row.in_(flagged))
    return int(connection.execute(counted).scalar_one())
