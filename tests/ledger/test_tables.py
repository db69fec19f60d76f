"""The ledger's tables are those that the migrations make."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from servers import postgres_server
from sqlalchemy import Engine, insert, select

from poisonwatch.ledger.tables import connect_database, files, metadata


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
