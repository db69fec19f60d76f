"""How attempts at deliveries ended, which were given up, and the targets that are out of reach."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for column in (
        sa.Column("tried_at", sa.String(length=32), nullable=True),
        sa.Column("refused_at", sa.String(length=32), nullable=True),
        sa.Column("given_up_at", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("sent_as", sa.String(length=16), nullable=True),
    ):
        op.add_column("deliveries", column)
    op.create_table(
        "outages",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("since", sa.String(length=32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", "target"),
    )
