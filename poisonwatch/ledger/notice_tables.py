"""The tables of what is expected: when audits of a name are due, what was told of their absence,
and which trained checkpoints could not be probed. They say nothing of rows, and are not on record
in the chain.
"""

from sqlalchemy import Column, Index, Integer, String, Table, Text

from poisonwatch.ledger.chain_tables import metadata

# when audits of a name are expected (`ledger.schedules`)
schedules = Table(
    "schedules",
    metadata,
    Column("name", String(200), primary_key=True),
    # as JSON (`ScheduleConfig.write`); no address that is pinged
    Column("schedule", Text, nullable=False),
    # since when these times are the expected ones
    Column("recorded_at", String(32), nullable=False),
)

# messages about audits that do not come, and that are back, of each name in turn; and about trained
# models (`ledger.notices`)
notices = Table(
    "notices",
    metadata,
    Column("notice", Integer, primary_key=True),
    # of the audits that it is about, or that a model was trained for
    Column("name", String(200), nullable=False),
    # overdue, back, moved
    Column("kind", String(10), nullable=False),
    # in the message, so that a receiver knows a repeated one
    Column("key", String(16), nullable=False, unique=True),
    Column("severity", String(10), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("notices_by_name", "name", "notice"),
)

# the last look for trained checkpoints of each name (`ledger.probe_looks`)
probe_looks = Table(
    "probe_looks",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("looked_at", String(32), nullable=False),
    # those that could not be probed, each with its folder and why, as JSON
    Column("failed", Text, nullable=False),
)
