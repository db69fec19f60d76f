"""Flagged rows as people work through them: in groups, gravest first, each row once.

A row that several audits flagged is where the last of them put it. It is open while it is in
quarantine and nobody has decided on it; a decision of `unsure` leaves it open.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Subquery,
    and_,
    case,
    cast,
    func,
    select,
    tuple_,
)

from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queries import (
    ID_DIGITS,
    is_hex,
    match_id_prefix,
    order_by_strength,
    select_last_audits,
    select_rows_of_file,
)
from poisonwatch.ledger.stages import QueueState as QueueState
from poisonwatch.ledger.stages import match_assignee, match_left_to, match_state
from poisonwatch.ledger.tables import audits, decisions, files, flags, places, rows
from poisonwatch.ledger.transactions import retried

KEY_DIGITS = 16  # of an example id, as the key of a row in no group
MAX_NUMBER_DIGITS = 7  # of a group's number: keys that are digits of an id have more
NO_SUCH_GROUP = "this audit flagged no such group of rows"


@dataclass(frozen=True, slots=True, kw_only=True)
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
        """What names the group in an address, below its audit."""
        return make_group_key(self.number, self.row)


def make_group_key(number: int | None, example_id: str) -> str:
    """What names a group in an address, below its audit: its number, or the first digits of the id
    of a row in no group.
    """
    return example_id[:KEY_DIGITS] if number is None else str(number)


@dataclass(frozen=True, slots=True)
class LastDecision:
    """The last decision on a row: its number in the chain, what, why, by whom, when; and what an
    edit has the row say.
    """

    number: int
    verdict: str
    note: str
    author: str
    decided_at: str
    answer: str | None = None


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
        """Whether it waits for a decision, as the queue counts it (`IS_UNDECIDED`): a later audit
        may have cleared it.
        """
        is_settled = self.decided is not None and self.decided.verdict != "unsure"
        return self.status == "flagged" and not is_settled


@retried
def list_groups(
    ledger: Ledger, wanted: AuditFilter, state: QueueState = "open", page: int = 1, size: int = 50
) -> tuple[list[FlaggedGroup], int]:
    """The `page`th `size` groups of flagged rows, gravest first, and how many there are in all."""
    grouped = _group_flagged(wanted, state)
    counted = select(func.count()).select_from(grouped)
    ordered = select(grouped).order_by(*_order_columns(grouped))
    with ledger.read() as connection:
        total = connection.execute(counted).scalar_one()
        found = connection.execute(ordered.limit(size).offset((page - 1) * size)).all()
        return _load_groups(connection, found), total


@retried
def find_next_group(
    ledger: Ledger, wanted: AuditFilter, audit_id: str, key: str, left_to: str = ""
) -> FlaggedGroup | None:
    """The open group that comes after this one (`FlaggedGroup.key`) in the queue, or the first
    after the last; None where no other is open. Without a key: the first of all. `left_to` a
    person: with rows that they can go on with (`stages.match_left_to`).
    """
    queue = _group_flagged(wanted, "open", left_to)
    everything = _group_flagged(AuditFilter(), "all")
    first = select(queue).order_by(*_order_columns(queue)).limit(1)
    with ledger.read() as connection:
        # A group that was just decided on has left the queue: its place is the one that it has
        # among all groups.
        place = _find_place(connection, queue, audit_id, key) if key else None
        if place is None and key:
            place = _find_place(connection, everything, audit_id, key)
        attempts = [first]
        if place is not None:
            order = tuple_(*_order_columns(queue))
            attempts = [first.where(order > tuple_(*place)), first.where(order < tuple_(*place))]
        for attempt in attempts:
            found = connection.execute(attempt).all()
            if found:
                return _load_groups(connection, found)[0]
    return None


def _find_place(
    connection: Connection, grouped: Subquery, audit_id: str, key: str
) -> Row[Any] | None:
    """What a group is ordered by (`_order_columns`); None where it is not among these."""
    audit = select(audits.c.audit).where(audits.c.audit_id == audit_id).scalar_subquery()
    if _is_group_number(key):
        here = grouped.c.group == int(key)
    else:
        row = (
            select(flags.c.row)
            .join(rows, rows.c.row == flags.c.row)
            .where(flags.c.audit == audit, match_group_key(key))
            .limit(1)
        )
        here = grouped.c.alone == row.scalar_subquery()
    query = select(*_order_columns(grouped)).where(grouped.c.audit == audit, here)
    return connection.execute(query).one_or_none()


def _group_flagged(wanted: AuditFilter, state: QueueState, left_to: str = "") -> Subquery:
    """A line for each group of flagged rows."""
    shown = _select_flagged(wanted, state, left_to)
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
    # Tuples with NULL in them do not compare.
    return (*gravest, func.coalesce(grouped.c.group, 0), func.coalesce(grouped.c.alone, 0))


def _load_groups(connection: Connection, found: Sequence[Row[Any]]) -> list[FlaggedGroup]:
    """The groups of these lines, each with what its strongest row pushes."""
    numbers = {line.audit for line in found}
    audit_of = {}
    for audit in connection.execute(select(audits).where(audits.c.audit.in_(numbers))):
        audit_of[audit.audit] = audit
    return [_load_group(connection, line, audit_of[line.audit]) for line in found]


def _load_group(connection: Connection, line: Row[Any], audit: Row[Any]) -> FlaggedGroup:
    members = flags.c.group == line.group
    if line.group is None:
        members = flags.c.row == line.alone
    strongest = (
        select(flags.c.panel, flags.c.sentinel, rows.c.id)
        .join(rows, rows.c.row == flags.c.row)
        .where(flags.c.audit == line.audit, members)
        .order_by(*order_by_strength())
        .limit(1)
    )
    best = connection.execute(strongest).one()
    row = ""
    if line.group is None:
        row = bytes(best.id).hex()[:KEY_DIGITS]
    return FlaggedGroup(
        audit_id=audit.audit_id,
        name=audit.name,
        number=line.group,
        row=row,
        panel=best.panel,
        sentinel=best.sentinel,
        severity=SEVERITIES[line.rank],
        rows=line.n,
        undecided=int(line.open),
        score=line.score,
        started_at=audit.started_at,
    )


@retried
def count_flagged_rows(ledger: Ledger, wanted: AuditFilter, state: QueueState = "open") -> int:
    """How many flagged rows of a filter are in a state: as many as the queue lists."""
    shown = _select_flagged(wanted, state)
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(shown)).scalar_one())


@retried
def list_flagged_ids(ledger: Ledger, audit_id: str) -> set[str]:
    """The example ids of all rows that an audit flagged."""
    query = (
        select(rows.c.id)
        .join(flags, flags.c.row == rows.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.audit_id == audit_id)
    )
    with ledger.read() as connection:
        return {bytes(id).hex() for id in connection.execute(query).scalars()}


@retried
def list_group_rows(ledger: Ledger, audit_id: str, key: str) -> list[FlaggedRow]:
    """The flagged rows of a group (`FlaggedGroup.key`) of an audit, strongest first. Raises
    InputError where there is none.
    """
    query = (
        select(rows, flags.c.record, flags.c.severity)
        .join(flags, flags.c.row == rows.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.audit_id == audit_id, match_group_key(key))
        .order_by(*order_by_strength())
    )
    with ledger.read() as connection:
        found = connection.execute(query).all()
        if not found:
            raise InputError(NO_SUCH_GROUP)
        numbers = [row.row for row in found]
        places_of = _find_places(connection, numbers)
        decision_on = _find_last_decisions(connection, numbers)
    group = []
    for row in found:
        flagged = FlaggedRow(
            example_id=bytes(row.id).hex(),
            severity=row.severity,
            status=row.status,
            record=json.loads(row.record),
            places=tuple(sorted(places_of.get(row.row, ()))),
            decided=decision_on.get(row.row),
        )
        group.append(flagged)
    return group


def _find_places(
    connection: Connection, numbers: Sequence[int]
) -> dict[int, list[tuple[str, int]]]:
    """The files and positions that hold each of these rows now."""
    query = (
        select(places.c.row, files.c.name, places.c.position)
        .join(files, files.c.file == places.c.file)
        .where(files.c.gone_at.is_(None))
    )
    found: dict[int, list[tuple[str, int]]] = {}
    for some in batched(numbers, VALUES_PER_STATEMENT):
        here = connection.execute(query.where(places.c.row.in_(some))).tuples()
        for row, name, position in here:
            found.setdefault(row, []).append((name, position))
    return found


def _find_last_decisions(connection: Connection, numbers: Sequence[int]) -> dict[int, LastDecision]:
    """The last decision on each of these rows; rows without any are left out."""
    last: dict[int, LastDecision] = {}
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = select(decisions).where(decisions.c.row.in_(some)).order_by(decisions.c.number)
        for decision in connection.execute(query):
            last[decision.row] = LastDecision(
                number=decision.number,
                verdict=decision.verdict,
                note=decision.note,
                author=decision.author,
                decided_at=decision.decided_at,
                answer=decision.answer,
            )
    return last


@retried
def export_flagged_rows(
    ledger: Ledger, wanted: AuditFilter, state: QueueState = "open"
) -> Sequence[Mapping[str, Any]]:
    """Every flagged row of a filter as a line of flags.jsonl, with its audit, group, status and
    decision, strongest first.
    """
    shown = _select_flagged(wanted, state)
    columns = audits.c.audit_id, audits.c.name, flags.c.group, rows.c.status, rows.c.decided
    query = (
        select(*columns, flags.c.record)
        .select_from(shown)
        .join(flags, and_(flags.c.audit == shown.c.audit, flags.c.row == shown.c.row))
        .join(audits, audits.c.audit == flags.c.audit)
        .join(rows, rows.c.row == flags.c.row)
        .order_by(*order_by_strength())
    )
    exported = []
    with ledger.read() as connection:
        for row in connection.execute(query):
            line = {column.name: getattr(row, column.name) for column in columns}
            exported.append(line | json.loads(row.record))
    return exported


def _select_flagged(wanted: AuditFilter, state: QueueState, left_to: str = "") -> Subquery:
    """Flagged rows by the last audit that flagged each: `open` is 1 where it waits for a decision,
    `alone` its number if in no group. `left_to` a person: those that they can go on with.
    """
    last = select_last_audits(flags)
    ranks = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    query = (
        select(
            flags.c.audit,
            flags.c.row,
            flags.c.group,
            case((flags.c.group.is_(None), flags.c.row), else_=None).label("alone"),
            cast(case(ranks, value=flags.c.severity, else_=0), Integer).label("rank"),
            flags.c.score,
            case((IS_UNDECIDED, 1), else_=0).label("open"),
        )
        .join(last, and_(last.c.row == flags.c.row, last.c.audit == flags.c.audit))
        .join(rows, rows.c.row == flags.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(*wanted.audit_conditions, match_state(state))
    )
    if wanted.severity:
        query = query.where(flags.c.severity == wanted.severity)
    if wanted.source:
        query = query.where(flags.c.row.in_(select_rows_of_file(wanted.source)))
    if wanted.assignee:
        query = query.where(match_assignee(wanted.assignee))
    if left_to:
        query = query.where(match_left_to(left_to))
    return query.subquery()


def _is_group_number(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) <= MAX_NUMBER_DIGITS


def match_group_key(key: str) -> ColumnElement[bool]:
    """The flags of a group, by its key. Raises InputError where it can be none."""
    if _is_group_number(key):
        return flags.c.group == int(key)
    if not is_hex(key) or len(key) > ID_DIGITS:
        raise InputError(NO_SUCH_GROUP)
    return match_id_prefix(key)
