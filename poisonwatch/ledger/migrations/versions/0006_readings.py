"""How the model reads rows is part of what a result holds for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.add_column("versions", sa.Column("reading", sa.String(length=64)))
        op.drop_constraint("versions_model_sentinels_key", "versions")
        op.create_unique_constraint(None, "versions", ["model", "sentinels", "reading"])
        return
    # SQLite takes no constraint off a table: it is made anew. Audits and results refer to its rows,
    # which are away for as long as the transaction lasts.
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    found = connection.execute(sa.text("SELECT version, model, sentinels FROM versions")).all()
    op.drop_table("versions")
    versions = op.create_table(
        "versions",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("sentinels", sa.String(length=64), nullable=False),
        sa.Column("reading", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("version"),
        sa.UniqueConstraint("model", "sentinels", "reading"),
    )
    rows = []
    for version, model, sentinels in found:
        rows.append({"version": version, "model": model, "sentinels": sentinels, "reading": None})
    op.bulk_insert(versions, rows)
