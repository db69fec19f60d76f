"""The tables of what goes to others, and of targets that take nothing."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text

from poisonwatch.ledger.chain_tables import metadata

# the outbox (`ledger.outbox`): what goes, or went, to others
deliveries = Table(
    "deliveries",
    metadata,
    # audit: an account of it; alert: a message; resolve: that its rows are decided on; notice:
    # that audits do not come, or are back; release: an account of it
    Column("kind", String(10), primary_key=True),
    # audits.audit, alerts.alert, notices.notice or records.number, by the kind: no foreign key can
    # say so
    Column("item", Integer, primary_key=True, autoincrement=False),
    # mlflow, prefect, openlineage; or the digest of an alert target's address without its secrets
    Column("target", String(64), primary_key=True),
    # that put it in; none: a notice, or a release, which no audit did
    Column("audit", ForeignKey("audits.audit")),
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
    # of a notice: an attempt is at work, or waits, until then
    Column("not_before", String(32)),
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
