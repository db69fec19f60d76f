"""What a database does by itself, where somebody told it to. Triggers, views and rules, which are
none of the ledger's, could change what is written before it is signed, or make up what is read.
"""

from sqlalchemy import Connection, bindparam, text

from poisonwatch.errors import OperationError
from poisonwatch.ledger.chain_tables import metadata
from poisonwatch.text.display import excerpt

SHOWN_CHARS = 40
_IN_SQLITE = text(
    "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view') UNION ALL "
    "SELECT name FROM sqlite_temp_master WHERE type IN ('trigger', 'view')"
)
# A view in a table's place has a rule, too. Foreign keys are internal triggers.
_IN_POSTGRESQL = text(
    "WITH ours AS (SELECT oid FROM pg_class WHERE relname IN :tables AND pg_table_is_visible(oid)) "
    "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM ours) "
    "UNION ALL SELECT rulename FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM ours) "
    "UNION ALL SELECT polname FROM pg_policy WHERE polrelid IN (SELECT oid FROM ours)"
).bindparams(bindparam("tables", expanding=True))


def refuse_foreign_code(connection: Connection) -> None:
    """Raises OperationError where the database holds any, as this transaction sees it."""
    if connection.dialect.name == "postgresql":
        found = connection.execute(_IN_POSTGRESQL, {"tables": list(metadata.tables)}).scalars()
    else:
        found = connection.execute(_IN_SQLITE).scalars()
    name = found.first()
    if name is not None:
        raise OperationError(
            "the ledger's database has a trigger, view or rule "
            f"({excerpt(str(name), SHOWN_CHARS)}) that is none of Poisonwatch's, and could "
            "change what is recorded: drop it, and run `poisonwatch verify`"
        )
