"""People who review together: who has which rows, comments, and verdicts that wait for a second
person.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "assignments",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("assignee", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("record", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.ForeignKeyConstraint(["record"], ["records.number"]),
        sa.PrimaryKeyConstraint("row"),
    )
    op.create_table(
        "proposals",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=200), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(length=10), nullable=False),
        sa.Column("record", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.ForeignKeyConstraint(["record"], ["records.number"]),
        sa.PrimaryKeyConstraint("row", "person"),
    )
    op.create_index("proposals_by_record", "proposals", ["record"], unique=False)
    op.create_table(
        "agreements",
        sa.Column("decision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("proposal", sa.Integer(), nullable=False),
        sa.Column("proposer", sa.Text(), nullable=False),
        sa.Column("record", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["decision"], ["decisions.number"]),
        sa.ForeignKeyConstraint(["proposal"], ["records.number"]),
        sa.ForeignKeyConstraint(["record"], ["records.number"]),
        sa.PrimaryKeyConstraint("decision"),
    )
    op.create_table(
        "commented_rows",
        sa.Column("record", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["record"], ["records.number"]),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.PrimaryKeyConstraint("record", "row"),
    )
    op.create_index("commented_rows_by_row", "commented_rows", ["row"], unique=False)
