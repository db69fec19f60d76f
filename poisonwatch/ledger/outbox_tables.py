"""The tables of what goes to others, and of targets that take nothing."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text

from poisonwatch.ledger.chain_tables import metadata

# the outbox (`ledger.outbox`): what goes, or went, to others
deliveries = Table(
    "deliveries",
    metadata,
    # audit: an account of it; alert: a message; resolve: that its rows are decided on
    Column("kind", String(10), primary_key=True),
    # audits.audit or alerts.alert, by the kind: no foreign key can say so
    Column("item", Integer, primary_key=True, autoincrement=False),
    # mlflow, prefect; or the digest of an alert target's address without its secrets
    Column("target", String(64), primary_key=True),
    # that put it in
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column("attempts", Integer, nullable=False),
    # none: pending, unless it was given up
    Column("delivered_at", String(32)),
    # of the last attempt
    Column("tried_at", String(32)),
    # since when the target refuses this message, while it takes others
    Column("refused_at", String(32)),
    Column("given_up_at", String(32)),
    # why the last attempt failed, without any address
    Column("reason", Text),
    # the key of the message that it went out in, where that was not the alert's own
    Column("sent_as", String(16)),
    Index("deliveries_open", "delivered_at"),
    Index("deliveries_by_audit", "audit"),
)

# alert targets that did not take what was sent last (`ledger.outages`)
outages = Table(
    "outages",
    metadata,
    # of the audits whose target it is
    Column("name", String(200), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("since", String(32), nullable=False),
    # runs of deliveries in a row
    Column("failures", Integer, nullable=False),
    Column("next_try_at", String(32), nullable=False),
    Column("reason", Text, nullable=False),
)
