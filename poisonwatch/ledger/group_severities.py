"""How grave the groups are that rows were flagged in: as their gravest row."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, case, cast, func, select
from sqlalchemy.types import Integer

from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched
from poisonwatch.ledger.tables import flags


def find_group_severities(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    """The severity of the group that each of these rows was last flagged in: its gravest row's;
    rows that were never flagged are left out. Two questions, however many rows there are.
    """
    severities: dict[int, str] = {}
    gravest_of: dict[tuple[int, int], str] = {}
    columns = flags.c.row, flags.c.audit, flags.c.group, flags.c.severity
    for some in batched(numbers, VALUES_PER_STATEMENT):
        here = flags.c.row.in_(some)
        last = select(flags.c.row, func.max(flags.c.audit).label("audit")).where(here)
        latest = last.group_by(flags.c.row).subquery()
        is_latest = (flags.c.row == latest.c.row) & (flags.c.audit == latest.c.audit)
        found = connection.execute(select(*columns).join(latest, is_latest)).all()
        grouped = {(flag.audit, flag.group) for flag in found if flag.group is not None}
        gravest_of |= _find_gravest(connection, grouped - gravest_of.keys())
        for flag in found:
            severities[flag.row] = gravest_of.get((flag.audit, flag.group), flag.severity)
    return severities


def _find_gravest(
    connection: Connection, groups: Collection[tuple[int, int]]
) -> dict[tuple[int, int], str]:
    """The severity of the gravest row of each of these groups: audit and number."""
    if not groups:
        return {}
    ranks = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    rank = func.max(cast(case(ranks, value=flags.c.severity, else_=0), Integer))
    query = select(flags.c.audit, flags.c.group, rank).group_by(flags.c.audit, flags.c.group)
    found = {}
    for some in batched(sorted({audit for audit, _ in groups}), VALUES_PER_STATEMENT):
        here = query.where(flags.c.audit.in_(some), flags.c.group.is_not(None))
        for audit, group, gravest in connection.execute(here).tuples():
            if (audit, group) in groups:
                found[audit, group] = SEVERITIES[gravest]
    return found
