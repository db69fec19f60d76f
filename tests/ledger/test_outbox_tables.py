"""What is owed outlives a change of the tables that say so."""

from pathlib import Path

from older_ledgers import make_older_ledger, split_statements
from servers import postgres_server

from poisonwatch.ledger.database import connect_database
from poisonwatch.ledger.outages import list_outages
from poisonwatch.ledger.outbox import list_pending_alerts

ROWS_OF_0008 = """
    INSERT INTO versions (version, model, sentinels, reading, settings)
        VALUES (1, 'model', 'sentinels', '', '')
    INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir)
        VALUES (2, 'two', 'tiny', 1, 'finished', '', '')
    INSERT INTO alerts VALUES (7, 2, 'key', 'digest', 'low', 'title', 'body', '')
    INSERT INTO deliveries VALUES ('alert', 7, 'json-1', 2, 2, 'yesterday')
    INSERT INTO deliveries VALUES ('alert', 7, 'json-2', 2, 1, NULL)
"""


def check_attempts(url: str) -> None:
    """Opened now, what was pending or delivered before attempts were told of is so still."""
    make_older_ledger(url, "0008", split_statements(ROWS_OF_0008))
    engine = connect_database(url)
    with engine.begin() as connection:
        (pending,) = list_pending_alerts(connection, "tiny")
        assert (pending.key, pending.audit_id, pending.attempts) == ("key", "two", 1)
        assert (pending.tried_at, pending.refused_at) == (None, None)
        assert list_outages(connection, "tiny") == {}
    engine.dispose()


def test_what_an_older_ledger_owes_is_owed_still(tmp_path: Path) -> None:
    """It has no times of attempts, and no targets out of reach."""
    check_attempts(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_what_an_older_ledger_owes_is_owed_still_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_attempts(url)
