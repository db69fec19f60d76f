"""What is told of silences is no part of what the ledger vouches for."""

from poisonwatch.ledger.chain_tables import metadata
from poisonwatch.ledger.notice_tables import notices, schedules


def test_notices_and_schedules_are_tables_of_the_ledger_that_depend_on_no_other() -> None:
    """Migrations compare all tables of one metadata; no row, audit or record hangs on a notice."""
    assert {notices, schedules} <= set(metadata.tables.values())
    assert not notices.foreign_keys | schedules.foreign_keys
