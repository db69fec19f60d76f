"""The chain of records, and results and rejections that are only ever added.

What is older than the chain is adopted: one record for each audit, and one for the decisions, says
how they were when the chain began.
"""

import sqlalchemy as sa
from alembic import op

from poisonwatch.ledger.audit_records import (
    ADOPTED_AUDIT,
    ADOPTED_NOTE,
    EARLIER_DECISIONS,
    describe_audit,
    read_decisions_head,
)
from poisonwatch.ledger.records import ADOPTED, append_record

revision = "0007"
down_revision = "0006"

_RESULTS = sa.table(
    "results", sa.column("row"), sa.column("version"), sa.column("audit"), sa.column("flagged")
)
_REJECTIONS = sa.table(
    "rejections",
    *map(sa.column, ("row", "checks", "audit", "expectation", "reason")),
)
_ROWS = sa.table("rows", *map(sa.column, ("row", "status", "decided")))
_AUDITS = sa.table("audits", *map(sa.column, ("audit", "audit_id", "state")))


def upgrade() -> None:
    connection = op.get_bind()
    op.create_table(
        "records",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("recorded_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("records_by_item", "records", ["kind", "item"], unique=False)
    op.create_table(
        "signatures",
        sa.Column("record", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["record"], ["records.number"]),
        sa.PrimaryKeyConstraint("record", "key_id"),
    )
    if connection.dialect.name == "postgresql":
        _widen_on_postgresql()
    else:
        _widen_on_sqlite(connection)
    _mend_states(connection)
    _adopt(connection)


def _widen_on_postgresql() -> None:
    op.add_column("versions", sa.Column("settings", sa.Text()))
    op.drop_constraint("versions_model_sentinels_reading_key", "versions")
    op.create_unique_constraint(None, "versions", ["model", "sentinels", "reading", "settings"])
    for table, key in (
        ("results", ["row", "version", "audit"]),
        ("rejections", ["row", "checks", "audit"]),
    ):
        op.drop_constraint(f"{table}_pkey", table)
        op.create_primary_key(f"{table}_pkey", table, key)


def _widen_on_sqlite(connection: sa.Connection) -> None:
    # SQLite takes no constraint off a table: each is made anew. Audits and results refer to
    # versions, which are away for as long as the transaction lasts.
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    found = connection.execute(sa.text("SELECT * FROM versions")).mappings().all()
    op.drop_table("versions")
    versions = op.create_table(
        "versions",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("sentinels", sa.String(length=64), nullable=False),
        sa.Column("reading", sa.String(length=64), nullable=True),
        sa.Column("settings", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("version"),
        sa.UniqueConstraint("model", "sentinels", "reading", "settings"),
    )
    op.bulk_insert(versions, [{**version, "settings": None} for version in found])
    op.drop_index("results_by_audit", table_name="results")
    op.rename_table("results", "results_0006")
    op.create_table(
        "results",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("flagged", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.ForeignKeyConstraint(["version"], ["versions.version"]),
        sa.PrimaryKeyConstraint("row", "version", "audit"),
        sqlite_with_rowid=False,
    )
    _move(connection, _RESULTS)
    op.create_index("results_by_audit", "results", ["audit"], unique=False)
    op.rename_table("rejections", "rejections_0006")
    op.create_table(
        "rejections",
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("checks", sa.String(length=64), nullable=False),
        sa.Column("audit", sa.Integer(), nullable=False),
        sa.Column("expectation", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audits.audit"]),
        sa.ForeignKeyConstraint(["row"], ["rows.row"]),
        sa.PrimaryKeyConstraint("row", "checks", "audit"),
        sqlite_with_rowid=False,
    )
    _move(connection, _REJECTIONS)


def _move(connection: sa.Connection, table: sa.TableClause) -> None:
    """Fill a table from what it was called before, which goes."""
    before = sa.table(f"{table.name}_0006", *(sa.column(column.name) for column in table.c))
    # In the order of the key, to which a table without row numbers adds cheaply.
    moved = sa.select(before).order_by(before.c[0], before.c[1])
    connection.execute(table.insert().from_select([column.name for column in table.c], moved))
    op.drop_table(before.name)


def _mend_states(connection: sa.Connection) -> None:
    """A row that no audit took, and whose verdict was taken back, was called rejected until now:
    nobody rejected it.
    """
    untouched = (
        (_ROWS.c.status == "rejected")
        & _ROWS.c.decided.is_(None)
        & ~sa.exists().where(_RESULTS.c.row == _ROWS.c.row)
        & ~sa.exists().where(_REJECTIONS.c.row == _ROWS.c.row)
    )
    connection.execute(_ROWS.update().where(untouched).values(status="pending"))


def _adopt(connection: sa.Connection) -> None:
    """Record what is there already. These records are written by the code of today: what it says
    of an audit has to stay the same (`audit_records`).
    """
    committed = _AUDITS.c.state.in_(("committed", "finished"))
    earlier = sa.select(_AUDITS.c.audit, _AUDITS.c.audit_id).where(committed)
    for audit, audit_id in connection.execute(earlier.order_by(_AUDITS.c.audit)).all():
        account = describe_audit(connection, audit)
        said = account.predicate | {"poisonwatch": None, "note": ADOPTED_NOTE}
        item = f"{ADOPTED_AUDIT}{audit_id}"
        append_record(connection, ADOPTED, item, account.subjects, said, signer=None)
    head = read_decisions_head(connection)
    if head.number:
        said = {"decisions": head._asdict(), "note": ADOPTED_NOTE}
        subjects = {f"decision {head.number}": head.hash}
        append_record(connection, ADOPTED, EARLIER_DECISIONS, subjects, said, signer=None)
