"""Past audits, and what each still owes to others.

An audit owes an account of itself to `mlflow`, and, where it ran as a flow, to `prefect`: from its
start, so that a crash at any line leaves the debt in the ledger. Whoever gives the account settles
the debt; the next audit, or `poisonwatch sync`, gives what is left.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, delete, desc, exists, func, select, update

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, flags, owed, rows, versions

COMMITTED_STATES = ("committed", "finished")  # states of audits whose results are in the ledger
IS_UNDECIDED = and_(
    rows.c.status == "flagged", rows.c.decided.is_(None)
)  # a flagged row that nobody has decided on


@dataclass(frozen=True, slots=True)
class PastAudit:
    """An audit as the ledger knows it. `number` rises with time; `summary` is empty where it never
    came to its results.
    """

    number: int
    audit_id: str
    name: str
    state: str
    started_at: str
    finished_at: str | None
    run_dir: Path
    flow_run: str | None
    model: str
    sentinels: str
    summary: Mapping[str, Any]

    @property
    def has_results(self) -> bool:
        """Its results are in the ledger."""
        return self.state in COMMITTED_STATES


def _select_audits() -> Select[Any]:
    return select(audits, versions.c.model, versions.c.sentinels).join(
        versions, versions.c.version == audits.c.version
    )


def _to_past_audit(row: Row[Any]) -> PastAudit:
    summary = json.loads(row.summary) if row.summary else {}
    times = row.started_at, row.finished_at
    return PastAudit(
        row.audit,
        row.audit_id,
        row.name,
        row.state,
        *times,
        Path(row.run_dir),
        row.flow_run,
        row.model,
        row.sentinels,
        summary,
    )


def list_past_audits(
    ledger: Ledger,
    name: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    where: Sequence[ColumnElement[bool]] = (),
) -> list[PastAudit]:
    """The audits of a name (None: of all names) that fulfil `where`, newest first: at most `limit`,
    without the first `offset`.
    """
    query = (
        _select_audits().where(*where).order_by(desc(audits.c.audit)).limit(limit).offset(offset)
    )
    with ledger.read() as connection:
        return [
            _to_past_audit(row)
            for row in connection.execute(
                query if name is None else query.where(audits.c.name == name)
            )
        ]


def find_by_flow_run(ledger: Ledger, flow_run: str) -> PastAudit | None:
    """The audit that a flow run brought to its results, if any: a flow run that is resumed or
    retried does not audit again.
    """
    return _find_latest(ledger, audits.c.flow_run == flow_run)


def find_by_audit_id(ledger: Ledger, audit_id: str) -> PastAudit | None:
    """The audit of an id, in whatever state, if any."""
    with ledger.read() as connection:
        row = connection.execute(
            _select_audits().where(audits.c.audit_id == audit_id)
        ).one_or_none()
        return None if row is None else _to_past_audit(row)


def find_by_run_dir(ledger: Ledger, run_dir: Path) -> PastAudit | None:
    """The audit that came to its results in a run directory, if any."""
    return _find_latest(ledger, audits.c.run_dir == str(run_dir.resolve()))


def _find_latest(ledger: Ledger, which: ColumnElement[bool]) -> PastAudit | None:
    query = (
        _select_audits()
        .where(which, audits.c.state.in_(COMMITTED_STATES))
        .order_by(desc(audits.c.audit))
        .limit(1)
    )
    with ledger.read() as connection:
        row = connection.execute(query).one_or_none()
        return None if row is None else _to_past_audit(row)


def count_undecided(ledger: Ledger, numbers: Sequence[int]) -> dict[int, int]:
    """How many of these audits' flagged rows nobody has decided on; audits without any are left
    out.
    """
    query = select(flags.c.audit, func.count()).join(rows, rows.c.row == flags.c.row)
    query = query.where(flags.c.audit.in_(numbers), IS_UNDECIDED).group_by(flags.c.audit)
    with ledger.read() as connection:
        return dict(connection.execute(query).tuples().all())


def list_undecided_ids(ledger: Ledger, number: int) -> list[str]:
    """Example ids of an audit's flagged rows that nobody has decided on, strongest first."""
    query = (
        select(rows.c.id)
        .join(flags, flags.c.row == rows.c.row)
        .where(flags.c.audit == number, IS_UNDECIDED)
    )
    with ledger.read() as connection:
        return [
            bytes(id).hex()
            for id in connection.execute(query.order_by(desc(flags.c.score))).scalars()
        ]


def list_pending_audits(ledger: Ledger, name: str, to: str) -> list[PastAudit]:
    """The audits of a name that still owe an account to a place, oldest first; those at work are
    left out.
    """
    debt = exists().where(owed.c.audit == audits.c.audit, owed.c.to == to)
    query = (
        _select_audits()
        .where(audits.c.name == name, debt, audits.c.state != "running")
        .order_by(audits.c.audit)
    )
    with ledger.read() as connection:
        return [_to_past_audit(row) for row in connection.execute(query)]


def mark_audit_delivered(
    ledger: Ledger, number: int, to: str, added: Mapping[str, Any] | None = None
) -> None:
    """An audit has given its account to a place; `added` goes into the summary that the ledger
    keeps, as its MLflow run id.
    """
    with ledger.write() as connection:
        connection.execute(delete(owed).where(owed.c.audit == number, owed.c.to == to))
        if added:
            text = connection.execute(
                select(audits.c.summary).where(audits.c.audit == number)
            ).scalar_one()
            known = {**json.loads(text), **added} if text else None
            if known is not None:
                connection.execute(
                    update(audits).where(audits.c.audit == number).values(summary=json.dumps(known))
                )


def list_pending_targets(ledger: Ledger, numbers: Sequence[int]) -> dict[int, set[str]]:
    """To whom each of these audits still owes an account; audits without debts are left out."""
    found: dict[int, set[str]] = {}
    with ledger.read() as connection:
        for audit, to in connection.execute(
            select(owed.c.audit, owed.c.to).where(owed.c.audit.in_(numbers))
        ).tuples():
            found.setdefault(audit, set()).add(to)
    return found
