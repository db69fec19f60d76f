"""Past audits by lines: those that follow each other and that no row waited for are one line.

Of hourly audits most find nothing new, and a list with a line for each shows nothing else. What
belongs together is found by the database: the list is read page by page, never whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, case, desc, func, not_, select

from poisonwatch.ledger.history import HAD_ROWS, PastAudit, list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import AUDIT_KIND, match_pending
from poisonwatch.ledger.tables import audits, deliveries
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.words import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One audit, or `count` audits without new rows that follow each other in a list: `newest` is
    the last of them, `oldest` the number of the first. They began from `since` to `until`. `name`
    is theirs, "" where they have several.
    """

    newest: PastAudit
    oldest: int
    count: int
    since: str
    until: str
    name: str

    @property
    def is_collapsed(self) -> bool:
        """It stands for several audits."""
        return self.count > 1

    def describe(self) -> str:
        """Several audits in words; times are in UTC."""
        since, until = (time[:16].replace("T", " ") for time in (self.since, self.until))
        return f"{plural(self.count, 'audit')} without new rows, {since} to {until}"


@retried
def list_audit_lines(
    ledger: Ledger,
    where: Sequence[ColumnElement[bool]] = (),
    limit: int | None = None,
    offset: int = 0,
) -> tuple[list[AuditLine], int]:
    """The lines of the audits that fulfil `where`, newest first: at most `limit`, without the first
    `offset`; and how many there are in all.
    """
    by_line = _select_lines(where)
    # Counted in passing: to look through all audits takes longer than all else.
    page = by_line.add_columns(func.count().over().label("total"))
    with ledger.read() as connection:
        found = connection.execute(page.order_by(desc("newest")).limit(limit).offset(offset)).all()
        total = found[0].total if found else 0
        # Behind the last line there is none to say how many there are.
        if offset and not found:
            counted = select(func.count()).select_from(by_line.subquery())
            total = connection.execute(counted).scalar_one()
    newest = audits.c.audit.in_([line.newest for line in found])
    past = {audit.number: audit for audit in list_past_audits(ledger, where=[newest])}
    lines = []
    for line in found:
        lines.append(
            AuditLine(
                newest=past[line.newest],
                oldest=line.oldest,
                count=line.size,
                since=line.since,
                until=line.until,
                name=line.first_name if line.first_name == line.last_name else "",
            )
        )
    return lines, total


@retried
def list_audits_of(
    ledger: Ledger, line: AuditLine, where: Sequence[ColumnElement[bool]], limit: int
) -> list[tuple[str, str]]:
    """The audits of a line among those that fulfil `where`, newest first, at most `limit`: id, and
    when each began.
    """
    query = (
        select(audits.c.audit_id, audits.c.started_at)
        .where(*where, _is_in(line))
        .order_by(desc(audits.c.audit))
        .limit(limit)
    )
    with ledger.read() as connection:
        return list(connection.execute(query).tuples())


@retried
def list_owed_targets(
    ledger: Ledger, line: AuditLine, where: Sequence[ColumnElement[bool]]
) -> list[str]:
    """Who was not told yet of some audit of a line, among those that fulfil `where`."""
    numbers = select(audits.c.audit).where(*where, _is_in(line))
    query = (
        select(deliveries.c.target)
        .where(match_pending(AUDIT_KIND), deliveries.c.item.in_(numbers))
        .distinct()
        .order_by(deliveries.c.target)
    )
    with ledger.read() as connection:
        return list(connection.execute(query).scalars())


def _is_in(line: AuditLine) -> ColumnElement[bool]:
    return audits.c.audit.between(line.oldest, line.newest.number)


def _select_lines(where: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """A row for each line: audits without new rows belong to one as long as no other audit stands
    between them, so as long as the number of others that are newer is the same.
    """
    is_empty = case((not_(HAD_ROWS), 1), else_=0)
    newer = func.sum(1 - is_empty).over(order_by=desc(audits.c.audit), rows=(None, 0))
    numbered = (
        select(
            audits.c.audit,
            audits.c.name,
            audits.c.started_at,
            is_empty.label("is_empty"),
            newer.label("newer"),
        )
        .where(*where)
        .subquery()
    )
    return select(
        func.max(numbered.c.audit).label("newest"),
        func.min(numbered.c.audit).label("oldest"),
        func.count().label("size"),
        func.min(numbered.c.started_at).label("since"),
        func.max(numbered.c.started_at).label("until"),
        func.min(numbered.c.name).label("first_name"),
        func.max(numbered.c.name).label("last_name"),
    ).group_by(numbered.c.is_empty, numbered.c.newer)
