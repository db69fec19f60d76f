"""Ledgers as earlier versions left them: made by the migrations up to one of them, and filled by
SQL.
"""

from collections.abc import Iterable
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from poisonwatch.ledger import tables
from poisonwatch.sources.sql import parse_database_url

MIGRATIONS = Path(tables.__file__).parent / "migrations"


def make_older_ledger(url: str, revision: str, statements: Iterable[str]) -> None:
    """A ledger at a revision, with the rows of these INSERTs."""
    engine = create_engine(parse_database_url(url, "state"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        # As every version called it until 0008.
        config.attributes["version_table"] = "alembic_version"
        command.upgrade(config, revision)
        for statement in statements:
            connection.exec_driver_sql(_quote(statement))
    engine.dispose()


def _quote(statement: str) -> str:
    """`row` and `rows` are words of SQL to PostgreSQL in some places."""
    return statement.replace("INTO rows (row,", 'INTO "rows" ("row",')


def split_statements(text: str) -> list[str]:
    """The INSERTs of a text."""
    return [f"INSERT {statement}" for statement in text.split("INSERT ")[1:]]
