"""The tables of people who review together."""

from poisonwatch.ledger.tables import metadata
from poisonwatch.ledger.team_tables import agreements, assignments, commented_rows, proposals


def test_they_are_the_ledgers() -> None:
    """So that migrations are held against them."""
    for table in (agreements, assignments, commented_rows, proposals):
        assert metadata.tables[table.name] is table
