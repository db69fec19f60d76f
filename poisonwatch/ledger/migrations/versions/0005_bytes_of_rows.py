"""Other bytes of a content than those it came in first."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "variants",
        sa.Column("variant", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("first_seen", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.ForeignKeyConstraint(["shape"], ["shapes.shape"]),
        sa.PrimaryKeyConstraint("variant"),
    )
    op.create_index("variants_by_row", "variants", ["row"], unique=False)
    op.create_index("variants_by_digest", "variants", ["digest"], unique=False)
    # SQLite has no ALTER that adds a foreign key to a table; a column with a reference it takes.
    op.execute("ALTER TABLE places ADD COLUMN variant INTEGER REFERENCES variants (variant)")
    op.add_column("rows", sa.Column("last_variant", sa.Integer()))
    op.execute("ALTER TABLE files ADD COLUMN shape INTEGER REFERENCES shapes (shape)")
    op.drop_index("places_by_row", table_name="places")
    op.create_index("places_by_row", "places", ["row", "variant"], unique=False)
