"""One outbox: what is owed to MLflow, Prefect and alert targets in one table."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("deliveries_open", table_name="deliveries")
    op.rename_table("deliveries", "deliveries_0003")
    op.create_table(
        "deliveries",
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("item", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("delivered_at", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.PrimaryKeyConstraint("kind", "item", "target"),
    )
    op.execute(
        "INSERT INTO deliveries (kind, item, target, audit, attempts, delivered_at) "
        "SELECT 'alert', d.alert, d.target, a.audit, d.attempts, d.delivered_at "
        "FROM deliveries_0003 AS d JOIN alerts AS a ON a.alert = d.alert"
    )
    op.execute(
        "INSERT INTO deliveries (kind, item, target, audit, attempts, delivered_at) "
        "SELECT 'audit', audit, \"to\", audit, 0, NULL FROM owed"
    )
    op.drop_table("deliveries_0003")
    op.drop_table("owed")
    op.create_index("deliveries_open", "deliveries", ["delivered_at"], unique=False)
    op.create_index("deliveries_by_audit", "deliveries", ["audit"], unique=False)
    op.drop_index("told_by_row", table_name="told")
    op.rename_table("told", "notified_rows")
    op.create_index("notified_rows_by_row", "notified_rows", ["row"], unique=False)
