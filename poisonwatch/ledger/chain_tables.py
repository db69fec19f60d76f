"""The tables of the chain of records, and the metadata that all of the ledger's tables are in."""

from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# the chain (`ledger.records`): rows are added, never changed
records = Table(
    "records",
    metadata,
    # 1, 2, 3, ...: a gap is a deletion
    Column("number", Integer, primary_key=True, autoincrement=False),
    # kind and item are in the statement, too: these are to look it up
    Column("kind", String(12), nullable=False),
    Column("item", Text),
    # an in-toto statement, as canonical JSON
    Column("statement", Text, nullable=False),
    # SHA-256 of the statement
    Column("hash", String(64), nullable=False),
    Column("recorded_at", String(32), nullable=False),
    Index("records_by_item", "kind", "item"),
)

# who vouches for a record; several keys may
signatures = Table(
    "signatures",
    metadata,
    Column("record", ForeignKey("records.number"), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    # a DSSE envelope over the statement, as JSON
    Column("envelope", Text, nullable=False),
)
