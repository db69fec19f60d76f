"""Flagged rows as people work through them: in groups, gravest first, each row once.

A row that several audits flagged stands where the last of them put it. It is open while it is in
quarantine and nobody has decided on it; a decision of `unsure` leaves it open.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    case,
    cast,
    desc,
    func,
    or_,
    select,
    tuple_,
)

from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.tables import audits, decisions, files, flags, places, rows

QueueState = Literal["open", "decided", "all"]


@dataclass(frozen=True, slots=True)
class FlaggedGroup:
    """Flagged rows of one audit that belong together: `number` is their line of evidence.jsonl,
    from 1.

    A row in no group is one of its own, without a `number`, with the digits of its id as `row`.
    `undecided` of the `rows` are open; `severity` and `score` are the highest, `panel` and
    `sentinel` those of the strongest row.
    """

    audit_id: str
    name: str
    number: int | None
    row: str
    panel: str
    sentinel: str
    severity: str
    rows: int
    undecided: int
    score: float
    started_at: str

    @property
    def key(self) -> str:
        """What stands for the group in an address, below its audit."""
        return str(self.number) if self.number is not None else self.row


@dataclass(frozen=True, slots=True)
class LastDecision:
    """The last decision on a row: its number in the chain, what, why, by whom, when."""

    number: int
    verdict: str
    note: str
    author: str
    decided_at: str


@dataclass(frozen=True, slots=True)
class FlaggedRow:
    """A flagged row: its `record` is a line of flags.jsonl, `places` are the files and positions
    that hold the same content now.
    """

    example_id: str
    severity: str
    status: str
    record: Mapping[str, Any]
    places: tuple[tuple[str, int], ...]
    decided: LastDecision | None

    @property
    def is_open(self) -> bool:
        """Whether it waits for a decision, as the queue counts it (`history.WAITING`): a later
        audit may have cleared it.
        """
        return self.status == "flagged" and (
            self.decided is None or self.decided.verdict == "unsure"
        )


def list_groups(
    ledger: Ledger, wanted: AuditFilter, state: QueueState = "open", page: int = 1, size: int = 50
) -> tuple[list[FlaggedGroup], int]:
    """The `page`th `size` groups of flagged rows, gravest first, and how many there are in all."""
    grouped = _group_flagged(wanted, state)
    with ledger.read() as connection:
        total = connection.execute(select(func.count()).select_from(grouped)).scalar_one()
        found = connection.execute(
            select(grouped).order_by(*_order_columns(grouped)).limit(size).offset((page - 1) * size)
        ).all()
        return _load_groups(connection, found), total


def find_next_group(
    ledger: Ledger, wanted: AuditFilter, audit_id: str, key: str
) -> FlaggedGroup | None:
    """The open group that comes after this one (`Group.key`) in the queue, or the first after the
    last; None where no other is open.
    """
    grouped, everything = _group_flagged(wanted, "open"), _group_flagged(AuditFilter(), "all")
    with ledger.read() as connection:
        audit = select(audits.c.audit).where(audits.c.audit_id == audit_id).scalar_subquery()
        row = (
            select(flags.c.row)
            .join(rows, rows.c.row == flags.c.row)
            .where(flags.c.audit == audit, _match_group_key(key))
            .limit(1)
            .scalar_subquery()
        )

        def own(among: Subquery) -> Select[Any]:
            here = among.c.group == int(key) if _is_group_number(key) else among.c.alone == row
            return select(*_order_columns(among)).where(among.c.audit == audit, here)

        place = (
            connection.execute(own(grouped)).one_or_none()
            or connection.execute(own(everything)).one_or_none()
        )
        first = select(grouped).order_by(*_order_columns(grouped)).limit(1)
        tries = [first]
        if place is not None:
            order = tuple_(*_order_columns(grouped))
            tries = [first.where(order > tuple_(*place)), first.where(order < tuple_(*place))]
        found = next((lines for query in tries if (lines := connection.execute(query).all())), ())
        return next(iter(_load_groups(connection, found)), None)


def _group_flagged(wanted: AuditFilter, state: QueueState) -> Subquery:
    """A line for each group of flagged rows."""
    shown = _select_flagged(wanted, state)
    of_group = (shown.c.audit, shown.c.group, shown.c.alone)
    return (
        select(
            *of_group,
            func.max(shown.c.rank).label("rank"),
            func.count().label("n"),
            func.sum(shown.c.open).label("open"),
            func.max(shown.c.score).label("score"),
        )
        .group_by(*of_group)
        .subquery()
    )


def _order_columns(grouped: Subquery) -> tuple[ColumnElement[Any], ...]:
    """What lines are in order of, ascending: gravest first, then newest; no two are equal."""
    gravest = (-grouped.c.rank, -grouped.c.score, -grouped.c.n, -grouped.c.audit)
    return (*gravest, func.coalesce(grouped.c.group, 0), func.coalesce(grouped.c.alone, 0))


def _load_groups(connection: Connection, found: Sequence[Row[Any]]) -> list[FlaggedGroup]:
    """The groups of these lines, each with what its strongest row pushes."""
    of = {
        a.audit: a
        for a in connection.execute(
            select(audits).where(audits.c.audit.in_({g.audit for g in found}))
        )
    }
    groups = []
    for g in found:
        same = flags.c.row == g.alone if g.group is None else flags.c.group == g.group
        strongest = select(flags.c.panel, flags.c.sentinel, rows.c.id).join(
            rows, rows.c.row == flags.c.row
        )
        best = connection.execute(
            strongest.where(flags.c.audit == g.audit, same).order_by(desc(flags.c.score)).limit(1)
        ).one()
        audit, severity = of[g.audit], SEVERITIES[g.rank]
        row = "" if g.group is not None else bytes(best.id).hex()[:16]
        names = (audit.audit_id, audit.name, g.group, row, best.panel, best.sentinel, severity)
        groups.append(FlaggedGroup(*names, g.n, int(g.open), g.score, audit.started_at))
    return groups


def count_open_rows(ledger: Ledger, wanted: AuditFilter) -> int:
    """How many flagged rows of a filter nobody has decided on: as many as the queue lists."""
    shown = _select_flagged(wanted, "open")
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(shown)).scalar_one())


def list_group_rows(ledger: Ledger, audit_id: str, key: str) -> list[FlaggedRow]:
    """The flagged rows of a group (`Group.key`) of an audit, strongest first. Raises InputError
    where there is none.
    """
    query = (
        select(rows, flags.c.record, flags.c.severity)
        .join(flags, flags.c.row == rows.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.audit_id == audit_id, _match_group_key(key))
        .order_by(desc(flags.c.score), flags.c.row)
    )
    with ledger.read() as connection:
        found = connection.execute(query).all()
        if not found:
            raise InputError("this audit flagged no such group of rows: go back to the queue")
        numbers = [row.row for row in found]
        standing: dict[int, list[tuple[str, int]]] = {}
        last: dict[int, LastDecision] = {}
        for some in batched(numbers, VALUES_PER_STATEMENT):
            here = select(places.c.row, files.c.name, places.c.position).join(
                files, files.c.file == places.c.file
            )
            for row, name, position in connection.execute(
                here.where(places.c.row.in_(some), files.c.gone_at.is_(None))
            ).tuples():
                standing.setdefault(row, []).append((name, position))
            for decision in connection.execute(
                select(decisions).where(decisions.c.row.in_(some)).order_by(decisions.c.number)
            ):
                last[decision.row] = LastDecision(
                    decision.number,
                    decision.verdict,
                    decision.note,
                    decision.author,
                    decision.decided_at,
                )
    return [
        FlaggedRow(
            bytes(row.id).hex(),
            row.severity,
            row.status,
            json.loads(row.record),
            tuple(sorted(standing.get(row.row, ()))),
            last.get(row.row),
        )
        for row in found
    ]


def export_flagged_rows(
    ledger: Ledger, wanted: AuditFilter, state: QueueState = "open"
) -> Sequence[Mapping[str, Any]]:
    """Every flagged row of a filter as a line of flags.jsonl, with its audit, group, status and
    decision, gravest first.
    """
    shown = _select_flagged(wanted, state)
    query = (
        select(
            audits.c.audit_id,
            audits.c.name,
            flags.c.group,
            flags.c.record,
            rows.c.status,
            rows.c.decided,
        )
        .select_from(shown)
        .join(flags, and_(flags.c.audit == shown.c.audit, flags.c.row == shown.c.row))
        .join(audits, audits.c.audit == flags.c.audit)
        .join(rows, rows.c.row == flags.c.row)
        .order_by(desc(shown.c.rank), desc(shown.c.score), shown.c.row)
    )
    with ledger.read() as connection:
        return [
            {
                "audit_id": f.audit_id,
                "name": f.name,
                "group": f.group,
                "status": f.status,
                "decided": f.decided,
                **json.loads(f.record),
            }
            for f in connection.execute(query)
        ]


def _select_flagged(wanted: AuditFilter, state: QueueState) -> Subquery:
    """Flagged rows by the last audit that flagged each: `open` is 1 where it waits for a decision,
    `alone` its number if in no group.
    """
    last = (
        select(flags.c.row, func.max(flags.c.audit).label("audit")).group_by(flags.c.row).subquery()
    )
    rank = case(
        {severity: k for k, severity in enumerate(SEVERITIES)}, value=flags.c.severity, else_=0
    )
    query = (
        select(
            flags.c.audit,
            flags.c.row,
            flags.c.group,
            case((flags.c.group.is_(None), flags.c.row), else_=None).label("alone"),
            cast(rank, Integer).label("rank"),
            flags.c.score,
            case((IS_UNDECIDED, 1), else_=0).label("open"),
        )
        .join(last, and_(last.c.row == flags.c.row, last.c.audit == flags.c.audit))
        .join(rows, rows.c.row == flags.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(*wanted.audit_conditions)
        .where(
            {
                "open": IS_UNDECIDED,
                "decided": rows.c.decided.is_not(None),
                "all": or_(IS_UNDECIDED, rows.c.decided.is_not(None)),
            }[state]
        )
    )
    if wanted.severity:
        query = query.where(flags.c.severity == wanted.severity)
    if wanted.source:
        here = (
            select(places.c.row)
            .join(files, files.c.file == places.c.file)
            .where(files.c.name == wanted.source)
        )
        query = query.where(flags.c.row.in_(here))
    return query.subquery()


def _is_group_number(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 8  # the digits of an id are more


def _match_group_key(key: str) -> ColumnElement[bool]:
    """The flags of a group, by its key."""
    return flags.c.group == int(key) if _is_group_number(key) else _match_id_prefix(key)


def _match_id_prefix(digits: str) -> ColumnElement[bool]:
    if not digits or len(digits) > 64 or set(digits) - set("0123456789abcdef"):
        raise InputError("this audit flagged no such group of rows: go back to the queue")
    low, high = (bytes.fromhex(digits.ljust(64, pad)) for pad in "0f")
    return rows.c.id.between(low, high)
