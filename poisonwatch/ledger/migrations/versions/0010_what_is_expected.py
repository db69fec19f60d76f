"""When audits are expected, and what was told of those that did not come: notices go through the
outbox, though no audit put them in.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "notices",
        sa.Column("notice", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("key", sa.String(length=16), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("notice"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("notices_by_name", "notices", ["name", "notice"], unique=False)
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.alter_column("audit", existing_type=sa.Integer(), nullable=True)
        deliveries.add_column(sa.Column("not_before", sa.String(length=32), nullable=True))
