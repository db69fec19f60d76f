"""What people are told again: flagged rows that nobody has decided on, by the group that each was
last flagged in, with who was told of them when; and the messages about them.

Such a message is an alert that no audit composed: it is no part of the audit's record, and has one
of its own in the chain.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from poisonwatch.attestation.signer import Signer
from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import COMMITTED_STATES, IS_UNDECIDED
from poisonwatch.ledger.mutes import MutableRow, Mute, find_mute
from poisonwatch.ledger.outbox import (
    ALERT_KIND,
    LATER_ALERTS,
    REMINDER,
    Alert,
    enqueue_alerts,
)
from poisonwatch.ledger.queries import order_by_strength, select_last_audits
from poisonwatch.ledger.records import append_record
from poisonwatch.ledger.tables import alerts, audits, deliveries, flags, notified_rows, rows
from poisonwatch.ledger.team_tables import assignments

REMINDER_RECORD = "reminder"  # kind of records


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRow:
    """A flagged row that nobody has decided on, as the last audit that flagged it says. Times are
    when that audit began, and came to its results; `assignee` is who has it ("": nobody).
    """

    number: int
    example_id: str
    audit_id: str
    panel: str
    severity: str
    score: float
    source: str
    position: int
    started_at: str
    flagged_at: str
    assignee: str


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Those of a group that nobody has decided on, strongest first; `key` names it below its audit,
    as in the dashboard's addresses.
    """

    key: str
    rows: tuple[OpenRow, ...]

    @property
    def assignees(self) -> list[str]:
        """Who has rows of it, each once."""
        return sorted({row.assignee for row in self.rows if row.assignee})

    @property
    def severity(self) -> str:
        return max((row.severity for row in self.rows), key=SEVERITIES.index)

    def find_mute(self, mutes: Sequence[Mute]) -> Mute | None:
        """The mute by which nobody is told of the group."""
        return find_mute(
            mutes, [MutableRow(row.example_id, row.panel, row.severity) for row in self.rows]
        )

    def find_past_mute(self, mutes: Sequence[Mute]) -> Mute | None:
        """The mute by which nobody was told of it when it was flagged."""
        began, ended = self.rows[0].started_at, self.rows[0].flagged_at
        held = [mute for mute in mutes if mute.muted_at <= ended and began <= mute.ended_at]
        return self.find_mute(held)


def list_open_groups(connection: Connection, name: str) -> list[OpenGroup]:
    """The groups of an audit's name with rows that nobody has decided on, oldest first."""
    last = select_last_audits(flags)
    columns = flags.c.group, flags.c.panel, flags.c.severity, flags.c.score, flags.c.record
    query = (
        select(rows.c.row, rows.c.id, flags.c.audit, *columns)
        .add_columns(audits.c.audit_id, audits.c.started_at, audits.c.finished_at)
        .add_columns(assignments.c.assignee)
        .join(last, last.c.row == rows.c.row)
        .join(flags, and_(flags.c.row == last.c.row, flags.c.audit == last.c.audit))
        .join(audits, audits.c.audit == flags.c.audit)
        .outerjoin(assignments, assignments.c.row == rows.c.row)
        .where(audits.c.name == name, IS_UNDECIDED)
        .order_by(flags.c.audit, *order_by_strength())
    )
    groups: dict[tuple[int, str], list[OpenRow]] = {}
    for found in connection.execute(query):
        record, id = json.loads(found.record), bytes(found.id).hex()
        open_row = OpenRow(
            number=found.row,
            example_id=id,
            audit_id=found.audit_id,
            panel=found.panel,
            severity=found.severity,
            score=found.score,
            source=record["source"],
            position=record["position"],
            started_at=found.started_at,
            flagged_at=found.finished_at or found.started_at,
            assignee=found.assignee or "",
        )
        key = id[:16] if found.group is None else str(found.group)
        groups.setdefault((found.audit, key), []).append(open_row)
    return [OpenGroup(key, tuple(members)) for (_, key), members in groups.items()]


def list_tellings(connection: Connection, name: str) -> dict[int, dict[str, str | None]]:
    """When each target was told first of rows that nobody has decided on, by row and target; None:
    a message is on its way.
    """
    is_pending = deliveries.c.delivered_at.is_(None) & deliveries.c.given_up_at.is_(None)
    waiting = func.sum(case((is_pending, 1), else_=0))
    first = func.min(deliveries.c.delivered_at)
    query = (
        select(notified_rows.c.row, deliveries.c.target, waiting, first)
        .join(rows, rows.c.row == notified_rows.c.row)
        .join(alerts, alerts.c.alert == notified_rows.c.alert)
        .join(audits, audits.c.audit == alerts.c.audit)
        .join(
            deliveries,
            and_(deliveries.c.item == alerts.c.alert, deliveries.c.kind == ALERT_KIND),
        )
        .where(audits.c.name == name, IS_UNDECIDED)
        .group_by(notified_rows.c.row, deliveries.c.target)
    )
    told: dict[int, dict[str, str | None]] = {}
    for row, target, left, first_told in connection.execute(query).tuples():
        if left:
            told.setdefault(row, {})[target] = None
        elif first_told is not None:
            told.setdefault(row, {})[target] = first_told
    return told


def list_last_reminders(connection: Connection, name: str) -> dict[str, str]:
    """When the last reminder to each target was written."""
    query = (
        select(deliveries.c.target, func.max(alerts.c.created_at))
        .join(alerts, and_(deliveries.c.item == alerts.c.alert, deliveries.c.kind == ALERT_KIND))
        .join(audits, audits.c.audit == alerts.c.audit)
        .where(audits.c.name == name, alerts.c.kind == REMINDER)
        .group_by(deliveries.c.target)
    )
    return dict(connection.execute(query).tuples().all())


def list_held_alerts(
    connection: Connection,
    name: str,
    mutes: Sequence[Mute],
    among: Collection[int] | None = None,
) -> set[int]:
    """The alerts (numbers) all of whose rows are muted, `among` these (None: those that wait to be
    sent): nobody is sent them for now.
    """
    if not mutes:
        return set()
    last = select_last_audits(flags)
    is_pending = deliveries.c.delivered_at.is_(None) & deliveries.c.given_up_at.is_(None)
    is_meant: ColumnElement[bool] = is_pending
    if among is not None:
        is_meant = alerts.c.alert.in_(among)
    query = (
        select(notified_rows.c.alert, rows.c.id, flags.c.panel, flags.c.severity)
        .join(rows, rows.c.row == notified_rows.c.row)
        .join(last, last.c.row == rows.c.row)
        .join(flags, and_(flags.c.row == last.c.row, flags.c.audit == last.c.audit))
        .join(alerts, alerts.c.alert == notified_rows.c.alert)
        .join(audits, audits.c.audit == alerts.c.audit)
        .join(
            deliveries,
            and_(deliveries.c.item == alerts.c.alert, deliveries.c.kind == ALERT_KIND),
        )
        .where(audits.c.name == name, is_meant)
        .distinct()
    )
    about: dict[int, list[MutableRow]] = {}
    for alert, id, panel, severity in connection.execute(query).tuples():
        about.setdefault(alert, []).append(MutableRow(bytes(id).hex(), panel, severity))
    return {alert for alert, members in about.items() if find_mute(mutes, members)}


def add_reminders(
    connection: Connection,
    name: str,
    new: Sequence[Alert],
    row_numbers: Mapping[str, int],
    created_at: str,
    signer: Signer | None,
) -> None:
    """Put in messages that no audit composed, each with a record of its own. Raises what the signer
    raises.
    """
    committed = audits.c.state.in_(COMMITTED_STATES)
    last = select(func.max(audits.c.audit)).where(audits.c.name == name, committed)
    audit = connection.execute(last).scalar_one()
    enqueue_alerts(connection, audit, new, row_numbers, created_at)
    for alert in new:
        subjects = {f"reminder {alert.key}": digest_reminder(connection, alert.key)}
        said = {"name": name, "rows": len(alert.example_ids)}
        append_record(connection, REMINDER_RECORD, alert.key, subjects, said, signer=signer)


def digest_reminder(connection: Connection, key: str) -> str:
    """The digest of a message and of the ids of the rows that it is about, as its record has it."""
    said = alerts.c.key, alerts.c.kind, alerts.c.severity, alerts.c.title, alerts.c.body
    query = select(*said, alerts.c.created_at).where(alerts.c.key == key)
    about = (
        select(rows.c.id)
        .join(notified_rows, notified_rows.c.row == rows.c.row)
        .join(alerts, alerts.c.alert == notified_rows.c.alert)
        .where(alerts.c.key == key)
        .order_by(rows.c.id)
    )
    ids = [bytes(id).hex() for id in connection.execute(about).scalars()]
    return hash_text(write_canonical([*connection.execute(query).one(), ids]))


def list_reminder_keys(connection: Connection) -> list[str]:
    """The keys of all messages that no audit composed."""
    query = select(alerts.c.key).where(alerts.c.kind.in_(LATER_ALERTS)).order_by(alerts.c.key)
    return list(connection.execute(query).scalars())
