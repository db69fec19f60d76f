"""Decisions that change a row: what it becomes, and the answer that it is given."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("repaired_id", sa.LargeBinary(length=32), nullable=True))
    op.add_column("decisions", sa.Column("answer", sa.Text(), nullable=True))
    op.create_index("decisions_by_repaired_id", "decisions", ["repaired_id"])
