"""Runs the ledger's migrations on the connection that `connect_database` hands over."""

from alembic import context

from poisonwatch.ledger.database import VERSION_TABLE
from poisonwatch.ledger.tables import metadata

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=metadata,
    # Until 0008 it was called as Alembic calls it.
    version_table=attributes.get("version_table", VERSION_TABLE),
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
