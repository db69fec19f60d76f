"""Locks by the name of an audit, the rows that audits at work will come to results on, and marks of
what was committed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "audit_locks",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "claimed_rows",
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.PrimaryKeyConstraint("audit"),
    )
    op.create_table(
        "commits",
        sa.Column("mark", sa.String(length=32), nullable=False),
        sa.Column("committed_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("mark"),
    )
