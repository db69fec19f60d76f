"""What audits tell others: what they still owe, alerts, their deliveries, rows in review queues."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("audits") as batch:
        batch.add_column(sa.Column("flow_run", sa.String(length=40), nullable=True))
    op.create_index("audits_by_name", "audits", ["name", "audit"], unique=False)
    op.create_table(
        "owed",
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("to", sa.String(length=10), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.PrimaryKeyConstraint("audit", "to"),
    )
    op.create_table(
        "alerts",
        sa.Column("alert", sa.Integer(), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.PrimaryKeyConstraint("alert"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("alerts_by_audit", "alerts", ["audit"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("alert", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("delivered_at", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["alert"], ["alerts.alert"]),
        sa.PrimaryKeyConstraint("alert", "target"),
    )
    op.create_index("deliveries_open", "deliveries", ["delivered_at"], unique=False)
    op.create_table(
        "told",
        sa.Column("alert", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["alert"], ["alerts.alert"]),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.PrimaryKeyConstraint("alert", "row"),
    )
    op.create_index("told_by_row", "told", ["row"], unique=False)
    op.create_table(
        "reviews",
        sa.Column("trace", sa.String(length=64), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("answer", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.PrimaryKeyConstraint("trace"),
    )
    op.create_index("reviews_by_row", "reviews", ["row"], unique=False)
