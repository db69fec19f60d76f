"""What is told of silences is no part of what the ledger vouches for."""

from poisonwatch.ledger.chain_tables import metadata
from poisonwatch.ledger.notice_tables import notices, probe_looks, schedules


def test_notices_schedules_and_looks_are_tables_of_the_ledger_that_depend_on_no_other() -> None:
    """Migrations compare all tables of one metadata; no row, audit or record hangs on a notice."""
    tables = {notices, schedules, probe_looks}
    assert tables <= set(metadata.tables.values())
    assert not any(table.foreign_keys for table in tables)
