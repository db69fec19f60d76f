"""The last look for trained checkpoints, and those that it could not probe."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "probe_looks",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("looked_at", sa.String(length=32), nullable=False),
        sa.Column("failed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
