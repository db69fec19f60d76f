"""Which group of its audit a flagged row belongs to, and the flags of a row."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("flags") as batch:
        batch.add_column(sa.Column("group", sa.Integer(), nullable=True))
    op.create_index("flags_by_row", "flags", ["row", "audit"], unique=False)
