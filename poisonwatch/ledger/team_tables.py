"""The tables of people who review together: who has which rows, what they said of them, and what
waits for a second person. All of it follows from the chain of records, and is kept to be asked
quickly.
"""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text

from poisonwatch.ledger.chain_tables import metadata

# who has a row to look at (`ledger.assignments`)
assignments = Table(
    "assignments",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("assignee", Text, nullable=False),
    # the name as it is compared (`text.names`)
    Column("person", Text, nullable=False),
    # 1 where the assignee took it, 0 where somebody else asked them to
    Column("taken", Integer, nullable=False),
    Column("record", ForeignKey("records.number"), nullable=False),
)

# verdicts that wait for a second person (`ledger.two_people`)
proposals = Table(
    "proposals",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    # the author's name as it is compared
    Column("person", String(200), primary_key=True),
    Column("author", Text, nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("record", ForeignKey("records.number"), nullable=False),
    Index("proposals_by_record", "record"),
)

# decisions that two people agree on
agreements = Table(
    "agreements",
    metadata,
    Column("decision", ForeignKey("decisions.number"), primary_key=True, autoincrement=False),
    # what the first of the two said
    Column("proposal", ForeignKey("records.number"), nullable=False),
    Column("proposer", Text, nullable=False),
    Column("record", ForeignKey("records.number"), nullable=False),
)

# the rows that a comment is about (`ledger.comments`)
commented_rows = Table(
    "commented_rows",
    metadata,
    Column("record", ForeignKey("records.number"), primary_key=True),
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Index("commented_rows_by_row", "row"),
)

# names of filters (`ledger.saved_views`): no evidence, and none of the chain
saved_views = Table(
    "saved_views",
    metadata,
    Column("name", String(100), primary_key=True),
    # path and query of the page
    Column("address", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("saved_at", String(32), nullable=False),
)
