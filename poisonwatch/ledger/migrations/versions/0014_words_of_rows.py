"""The words of rows, to search them by, and the names of saved views."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    # Neither is in the metadata: what the two databases offer for words is not alike.
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            'CREATE TABLE row_words ("row" INTEGER PRIMARY KEY REFERENCES "rows" ("row"), '
            "words TSVECTOR NOT NULL)"
        )
        op.execute("CREATE INDEX row_words_by_word ON row_words USING gin (words)")
    else:
        # Without the text itself, which the rows have.
        op.execute(
            "CREATE VIRTUAL TABLE row_words USING fts5("
            "words, content='', tokenize='unicode61 remove_diacritics 0')"
        )
    op.create_table(
        "saved_views",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
