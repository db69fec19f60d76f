"""What audits found of one row, and what people decided on it."""

from sqlalchemy import select, union

from poisonwatch.ledger.decisions import Decision, read_decisions_in
from poisonwatch.ledger.group_teams import list_agreed
from poisonwatch.ledger.history import PastAudit, list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, decisions, rejections, results, rows
from poisonwatch.ledger.transactions import retried

MOST_AUDITS = 20


def list_audits_of_row(ledger: Ledger, example_id: str) -> list[PastAudit]:
    """The audits that came to a result on a row, newest first, at most MOST_AUDITS."""
    row = select(rows.c.row).where(rows.c.id == bytes.fromhex(example_id)).scalar_subquery()
    passed = select(results.c.audit).where(results.c.row == row)
    refused = select(rejections.c.audit).where(rejections.c.row == row)
    which = audits.c.audit.in_(union(passed, refused))
    return list_past_audits(ledger, limit=MOST_AUDITS, where=[which])


@retried
def list_agreed_on_row(ledger: Ledger, example_id: str) -> dict[int, str]:
    """Who said the same before the person who made a decision on a row, by its number."""
    query = select(rows.c.row).where(rows.c.id == bytes.fromhex(example_id))
    with ledger.read() as connection:
        return list_agreed(connection, connection.execute(query).scalars().all())


@retried
def list_decisions_on_row(ledger: Ledger, example_id: str) -> list[Decision]:
    """Every decision on a row, oldest first."""
    with ledger.read() as connection:
        return list(read_decisions_in(connection, decisions.c.example_id == example_id))
