"""The ledger's tables are those that the migrations make."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from older_ledgers import make_older_ledger, split_statements
from servers import postgres_server
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.ledger.database import VERSION_TABLE, connect_database
from poisonwatch.ledger.decisions import Decision, read_decisions, verify_chain
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import CHAIN_START
from poisonwatch.ledger.tables import (
    deliveries,
    files,
    metadata,
    notified_rows,
    places,
    rows,
    variants,
)
from poisonwatch.ledger.team_tables import assignments

ROWS_OF_0003 = """
    INSERT INTO versions VALUES (1, 'model', 'sentinels')
    INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir)
        VALUES (1, 'one', 'tiny', 1, 'finished', '', ''), (2, 'two', 'tiny', 1, 'finished', '', '')
    INSERT INTO owed VALUES (1, 'mlflow'), (2, 'mlflow'), (2, 'prefect')
    INSERT INTO shapes (shape, digest, format) VALUES (1, '', 'null')
    INSERT INTO rows (row, id, raw, digest, shape, status, first_seen)
        VALUES (3, '3', '', '', 1, 'flagged', '')
    INSERT INTO alerts VALUES (7, 2, 'key', 'digest', 'low', 'title', 'body', '')
    INSERT INTO deliveries VALUES (7, 'json-1', 2, 'yesterday'), (7, 'json-2', 1, NULL)
    INSERT INTO told VALUES (7, 3)
"""
ROWS_OF_0004 = """
    INSERT INTO files (file, audit, name, reading, rows, read_at) VALUES (1, 'tiny', 'a', '', 2, '')
    INSERT INTO shapes (shape, digest, format) VALUES (1, '', 'null')
    INSERT INTO rows (row, id, raw, digest, shape, status, first_seen)
        VALUES (3, '3', 'x', 'd', 1, 'clean', '')
    INSERT INTO places VALUES (1, 0, 3, 'line 1'), (1, 1, 3, 'line 2')
"""
ROWS_OF_0011 = """
    INSERT INTO shapes (shape, digest, format) VALUES (1, '', 'null')
    INSERT INTO rows (row, id, raw, digest, shape, status, first_seen)
        VALUES (3, '3', '', '', 1, 'flagged', '')
    INSERT INTO records VALUES (1, 'audit', 'one', '{}', '', '')
"""


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        # The words of rows lie as either database keeps them, with tables of its own beside.
        options = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, *_: not str(name).startswith("row_words"),
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))


def test_migrations_make_the_tables_that_the_code_speaks_of(tmp_path: Path) -> None:
    """No difference between the migrated database and the metadata; a second opening changes
    nothing.
    """
    for _ in range(2):
        engine = connect_database(f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}")
        assert differences(engine) == []
        engine.dispose()


def test_migrations_make_the_same_tables_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        engine = connect_database(url)
        assert differences(engine) == []
        engine.dispose()


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """What was written before the error is gone."""
    engine = connect_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    values = {"audit": "a", "name": "n", "reading": "", "rows": 0, "read_at": ""}
    try:
        with engine.execution_options(writing=True).begin() as connection:
            connection.execute(insert(files).values(values))
            raise KeyError
    except KeyError:
        pass
    with engine.begin() as connection:
        assert connection.execute(select(files)).all() == []
    engine.dispose()


def check_errors_without_values(url: str) -> None:
    """A statement that fails is named without the values that it was to write."""
    engine = connect_database(url)
    statement = text("INSERT INTO nowhere VALUES (:raw)")
    with engine.connect() as connection, pytest.raises(SQLAlchemyError, match="nowhere") as caught:
        connection.execute(statement, {"raw": "what a customer said"})
    assert "what a customer said" not in str(caught.value)
    engine.dispose()


def test_errors_repeat_no_row(tmp_path: Path) -> None:
    """Row text is in no error, whatever fails."""
    check_errors_without_values(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_errors_repeat_no_row_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_errors_without_values(url)


def check_one_outbox(url: str) -> None:
    """Opened now, all of it is in one: pending, delivered and tried as before."""
    blob = "CAST('3' AS BLOB)" if url.startswith("sqlite") else "'3'"
    make_older_ledger(url, "0003", split_statements(ROWS_OF_0003.replace("'3'", blob)))
    engine = connect_database(url)
    assert differences(engine) == []
    key = deliveries.c.kind, deliveries.c.item, deliveries.c.target
    told = deliveries.c.audit, deliveries.c.attempts, deliveries.c.delivered_at
    with engine.begin() as connection:
        found = connection.execute(select(*key, *told).order_by(*key)).all()
        assert connection.execute(select(notified_rows)).all() == [(7, 3)]
    assert found == [
        ("alert", 7, "json-1", 2, 2, "yesterday"),
        ("alert", 7, "json-2", 2, 1, None),
        ("audit", 1, "mlflow", 1, 0, None),
        ("audit", 2, "mlflow", 2, 0, None),
        ("audit", 2, "prefect", 2, 0, None),
    ]
    engine.dispose()


def test_two_outboxes_become_one(tmp_path: Path) -> None:
    """What an older ledger had in either is in the new table."""
    check_one_outbox(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_two_outboxes_become_one_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_one_outbox(url)


def check_one_form_of_bytes(url: str) -> None:
    """Opened now, every place holds its row's own bytes, and may hold others."""
    make_older_ledger(url, "0004", split_statements(ROWS_OF_0004))
    engine = connect_database(url)
    assert differences(engine) == []
    with engine.begin() as connection:
        assert connection.execute(select(places).order_by(places.c.position)).all() == [
            (1, 0, 3, "line 1", None),
            (1, 1, 3, "line 2", None),
        ]
        assert connection.execute(select(rows.c.row, rows.c.status)).all() == [(3, "clean")]
        values = {"row": 3, "raw": b"y", "digest": b"e", "shape": 1, "first_seen": ""}
        added = insert(variants).values(values).returning(variants.c.variant)
        number = connection.execute(added).scalar_one()
        connection.execute(places.update().values(variant=number))
    engine.dispose()


def test_rows_of_an_older_ledger_stand_in_their_own_bytes(tmp_path: Path) -> None:
    """The places of 0004 keep what they had."""
    check_one_form_of_bytes(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_rows_of_an_older_ledger_stand_in_their_own_bytes_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_one_form_of_bytes(url)


def check_people_who_review(url: str) -> None:
    """Opened now, a flagged row waits as before, and can be given to somebody."""
    blob = "CAST('3' AS BLOB)" if url.startswith("sqlite") else "'3'"
    make_older_ledger(url, "0011", split_statements(ROWS_OF_0011.replace("'3'", blob)))
    engine = connect_database(url)
    assert differences(engine) == []
    with engine.execution_options(writing=True).begin() as connection:
        assert connection.execute(select(rows.c.row, rows.c.status)).all() == [(3, "flagged")]
        assert connection.execute(select(assignments)).all() == []
        # Its words are indexed once somebody looks for them.
        assert connection.execute(text("SELECT count(*) FROM row_words")).scalar_one() == 0
        value = {"row": 3, "assignee": "Ann", "person": "ann", "taken": 1, "record": 1}
        connection.execute(insert(assignments).values(value))
    engine.dispose()


def test_rows_of_an_older_ledger_can_be_reviewed_together(tmp_path: Path) -> None:
    """Nobody has them."""
    check_people_who_review(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_rows_of_an_older_ledger_can_be_reviewed_together_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_people_who_review(url)


def check_decisions_of_0011(url: str) -> None:
    """Opened now, decisions are what they were: their chain holds, and they change no row."""
    made = Decision(
        number=1,
        example_id="33" * 32,
        verdict="benign",
        note="ours",
        author="ann",
        decided_at="2026-11-29T00:00:00+00:00",
        previous=CHAIN_START,
        hash="",
    )
    made = replace(made, hash=made.compute_hash())
    told = asdict(made)
    del told["repaired_id"], told["answer"]
    values = ", ".join(repr(value) for value in told.values())
    id = f"x'{made.example_id}'" if url.startswith("sqlite") else f"'\\x{made.example_id}'"
    statements = [
        "INSERT INTO shapes (shape, digest, format) VALUES (1, '', 'null')",
        "INSERT INTO rows (row, id, raw, digest, shape, status, decided, first_seen) "
        f"VALUES (3, {id}, 'x', 'd', 1, 'clean', 'benign', '')",
        f"INSERT INTO decisions (row, {', '.join(told)}) VALUES (3, {values})",
    ]
    make_older_ledger(url, "0011", statements)
    with Ledger.at(url) as ledger:
        assert differences(ledger.engine) == []
        assert list(read_decisions(ledger)) == [made]
        assert verify_chain(ledger) == (1, made.hash)


def test_decisions_of_an_older_ledger_stand(tmp_path: Path) -> None:
    """Those of 0011, which knew no repairs."""
    check_decisions_of_0011(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_decisions_of_an_older_ledger_stand_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_decisions_of_0011(url)
