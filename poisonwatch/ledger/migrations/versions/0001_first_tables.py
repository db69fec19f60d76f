"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("file", sa.Integer(), nullable=False),
        sa.Column("audit", sa.String(length=200), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("mark", sa.Text(), nullable=True),
        sa.Column("reading", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("read_at", sa.String(length=32), nullable=False),
        sa.Column("gone_at", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("file"),
        sa.UniqueConstraint("audit", "name"),
    )
    op.create_table(
        "shapes",
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("schema", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("shape"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "versions",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("sentinels", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        sa.UniqueConstraint("model", "sentinels"),
    )
    op.create_table(
        "audits",
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("audit_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("finished_at", sa.String(length=32), nullable=True),
        sa.Column("run_dir", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["version"],
            ["versions.version"],
        ),
        sa.PrimaryKeyConstraint("audit"),
        sa.UniqueConstraint("audit_id"),
    )
    op.create_table(
        "rows",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("decided", sa.String(length=10), nullable=True),
        sa.Column("first_seen", sa.String(length=32), nullable=False),
        sa.Column("replaces", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["replaces"],
            ["rows.row"],
        ),
        sa.ForeignKeyConstraint(
            ["shape"],
            ["shapes.shape"],
        ),
        sa.PrimaryKeyConstraint("row"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("rows_by_status", "rows", ["status"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("example_id", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=10), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.String(length=32), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["row"],
            ["rows.row"],
        ),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("decisions_by_row", "decisions", ["row"], unique=False)
    op.create_table(
        "flags",
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("panel", sa.Text(), nullable=False),
        sa.Column("sentinel", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("q", sa.Float(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["audit"],
            ["audits.audit"],
        ),
        sa.ForeignKeyConstraint(
            ["row"],
            ["rows.row"],
        ),
        sa.PrimaryKeyConstraint("audit", "row"),
    )
    op.create_table(
        "places",
        sa.Column("file", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["file"],
            ["files.file"],
        ),
        sa.ForeignKeyConstraint(
            ["row"],
            ["rows.row"],
        ),
        sa.PrimaryKeyConstraint("file", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index("places_by_row", "places", ["row"], unique=False)
    op.create_table(
        "rejections",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("checks", sa.String(length=64), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("expectation", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["audit"],
            ["audits.audit"],
        ),
        sa.ForeignKeyConstraint(
            ["row"],
            ["rows.row"],
        ),
        sa.PrimaryKeyConstraint("row", "checks"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "results",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("flagged", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["audit"],
            ["audits.audit"],
        ),
        sa.ForeignKeyConstraint(
            ["row"],
            ["rows.row"],
        ),
        sa.ForeignKeyConstraint(
            ["version"],
            ["versions.version"],
        ),
        sa.PrimaryKeyConstraint("row", "version"),
        sqlite_with_rowid=False,
    )
    op.create_index("results_by_audit", "results", ["audit"], unique=False)
