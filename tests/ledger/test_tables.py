"""The ledger's tables are those that the migrations make."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from servers import postgres_server
from sqlalchemy import Engine, create_engine, insert, select

from poisonwatch.ledger import tables
from poisonwatch.ledger.tables import connect_database, deliveries, files, metadata, notified_rows
from poisonwatch.sources.sql import parse_database_url

MIGRATIONS = Path(tables.__file__).parent / "migrations"
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


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))


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


def make_ledger_of_0003(url: str) -> None:
    """A ledger as it was when accounts of audits and alerts had an outbox each."""
    engine = create_engine(parse_database_url(url, "state"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for statement in ROWS_OF_0003.split("INSERT ")[1:]:
            connection.exec_driver_sql(quoted(f"INSERT {statement}"))
    engine.dispose()


def quoted(statement: str) -> str:
    """`row` and `rows` are words of SQL to PostgreSQL in some places."""
    return statement.replace("INTO rows (row,", 'INTO "rows" ("row",')


def check_one_outbox(url: str) -> None:
    """Opened now, all of it is in one: pending, delivered and tried as before."""
    make_ledger_of_0003(url)
    engine = connect_database(url)
    assert differences(engine) == []
    key = deliveries.c.kind, deliveries.c.item, deliveries.c.target
    with engine.begin() as connection:
        found = connection.execute(select(deliveries).order_by(*key)).all()
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
