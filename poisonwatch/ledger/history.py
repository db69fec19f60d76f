"""Past audits, and to whom each is still to be reported.

An account of every audit goes to `mlflow`, and, where it ran as a flow, to `prefect`: a delivery is
pending from its start, so that a crash at any line leaves it in the outbox. Whoever gives the
account marks it as delivered; the next audit, or `poisonwatch sync`, gives what is left.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    desc,
    exists,
    func,
    not_,
    or_,
    select,
    update,
)

from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.outbox import (
    AUDIT_KIND,
    FINDING_KIND,
    Delivery,
    list_notified_ids,
    mark_delivered,
    match_pending,
    pending,
)
from poisonwatch.ledger.queries import order_by_strength
from poisonwatch.ledger.tables import audits, deliveries, flags, rows, versions
from poisonwatch.ledger.transactions import LostTransactionError, retried

COMMITTED_STATES = ("committed", "finished")  # states of audits whose results are in the ledger
# A flagged row that nobody has decided on.
IS_UNDECIDED = and_(rows.c.status == "flagged", rows.c.decided.is_(None))

# An audit that rows waited for; null where it came to no results. What a summary quotes of rows has
# backslashes before its quotation marks.
HAD_ROWS = not_(audits.c.summary.contains('"nothing_new": true', autoescape=True))


@dataclass(frozen=True, slots=True, kw_only=True)
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

    @property
    def nothing_new(self) -> bool:
        """No row waited for it, and it left no run directory."""
        return bool(self.summary.get("nothing_new"))


def _select_audits() -> Select[Any]:
    return select(audits, versions.c.model, versions.c.sentinels).join(
        versions, versions.c.version == audits.c.version
    )


def _to_past_audit(row: Row[Any]) -> PastAudit:
    return PastAudit(
        number=row.audit,
        audit_id=row.audit_id,
        name=row.name,
        state=row.state,
        started_at=row.started_at,
        finished_at=row.finished_at,
        run_dir=Path(row.run_dir),
        flow_run=row.flow_run,
        model=row.model,
        sentinels=row.sentinels,
        summary=json.loads(row.summary or "{}"),
    )


@retried
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
    query = _select_audits().where(*where).order_by(desc(audits.c.audit))
    if name is not None:
        query = query.where(audits.c.name == name)
    with ledger.read() as connection:
        found = connection.execute(query.limit(limit).offset(offset))
        return [_to_past_audit(row) for row in found]


def find_by_flow_run(ledger: Ledger, flow_run: str) -> PastAudit | None:
    """The audit that a flow run brought to its results, if any: a flow run that is resumed or
    retried does not audit again.
    """
    return _find_latest(ledger, audits.c.flow_run == flow_run)


def find_by_audit_id(ledger: Ledger, audit_id: str) -> PastAudit | None:
    """The audit of an id, in whatever state, if any."""
    return _find_audit(ledger, _select_audits().where(audits.c.audit_id == audit_id))


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
    return _find_audit(ledger, query)


@retried
def _find_audit(ledger: Ledger, query: Select[Any]) -> PastAudit | None:
    with ledger.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return _to_past_audit(row)


@retried
def find_notified_ids(ledger: Ledger, name: str) -> set[str]:
    """Example ids of the rows that alerts of an audit's name were about."""
    with ledger.read() as connection:
        return list_notified_ids(connection, name)


@retried
def count_undecided(ledger: Ledger, numbers: Sequence[int]) -> dict[int, int]:
    """How many of these audits' flagged rows nobody has decided on; audits without any are left
    out.
    """
    query = (
        select(flags.c.audit, func.count())
        .join(rows, rows.c.row == flags.c.row)
        .where(flags.c.audit.in_(numbers), IS_UNDECIDED)
        .group_by(flags.c.audit)
    )
    with ledger.read() as connection:
        return dict(connection.execute(query).tuples().all())


@retried
def list_undecided_ids(ledger: Ledger, number: int) -> list[str]:
    """Example ids of an audit's flagged rows that nobody has decided on, strongest first."""
    query = (
        select(rows.c.id)
        .join(flags, flags.c.row == rows.c.row)
        .where(flags.c.audit == number, IS_UNDECIDED)
        .order_by(*order_by_strength())
    )
    with ledger.read() as connection:
        return [bytes(id).hex() for id in connection.execute(query).scalars()]


@retried
def list_pending_audits(
    ledger: Ledger, name: str, target: str, kind: str = AUDIT_KIND
) -> list[PastAudit]:
    """The audits of a name whose account (of this kind) a target has not got yet, oldest first;
    those at work are left out.
    """
    still_open = exists().where(
        match_pending(kind),
        deliveries.c.item == audits.c.audit,
        deliveries.c.target == target,
    )
    query = (
        _select_audits()
        .where(audits.c.name == name, still_open, audits.c.state != "running")
        .order_by(audits.c.audit)
    )
    with ledger.read() as connection:
        return [_to_past_audit(row) for row in connection.execute(query)]


@retried
def mark_audit_delivered(
    ledger: Ledger, number: int, target: str, added: Mapping[str, Any] | None = None
) -> None:
    """A target has got an audit's account; `added` goes into the summary that the ledger keeps, as
    its MLflow run id.
    """
    with ledger.write() as connection:
        mark_delivered(connection, Delivery(AUDIT_KIND, number, target), now())
        if added:
            _add_to_summary(connection, number, added)


@contextmanager
def counting_failures(ledger: Ledger, name: str, target: str) -> Iterator[None]:
    """Where the block fails, count an attempt at every account of a name that a target has not
    got: what was tried in vain is told to whoever asks how audits stand.
    """
    try:
        yield
    except LostTransactionError:
        # The ledger itself is away.
        raise
    except PoisonwatchError:
        _count_failures(ledger, name, target)
        raise


@retried
def _count_failures(ledger: Ledger, name: str, target: str) -> None:
    of_name = select(audits.c.audit).where(audits.c.name == name, audits.c.state != "running")
    accounts = or_(match_pending(AUDIT_KIND), match_pending(FINDING_KIND))
    owed = accounts & (deliveries.c.target == target)
    values = {"attempts": deliveries.c.attempts + 1, "tried_at": now()}
    with ledger.write() as connection:
        failed = update(deliveries).where(owed, deliveries.c.item.in_(of_name))
        connection.execute(failed.values(values))


def _add_to_summary(connection: Connection, number: int, added: Mapping[str, Any]) -> None:
    of_audit = audits.c.audit == number
    text = connection.execute(select(audits.c.summary).where(of_audit)).scalar_one()
    # An audit that never came to its results has none.
    if text:
        summary = json.dumps({**json.loads(text), **added})
        connection.execute(update(audits).where(of_audit).values(summary=summary))


@retried
def list_pending_targets(ledger: Ledger, numbers: Sequence[int]) -> dict[int, set[str]]:
    """The targets that each of these audits' accounts is still to go to; audits without any are
    left out.
    """
    found: dict[int, set[str]] = {}
    with ledger.read() as connection:
        for delivery in pending(connection, AUDIT_KIND, numbers):
            found.setdefault(delivery.item, set()).add(delivery.target)
    return found
