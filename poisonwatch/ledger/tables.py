"""The ledger's tables.

    files ──< places >── rows ──< results >── audits ──< flags
                          │ └──< rejections            │ ├──< deliveries
                          ├──< decisions               │ └──< alerts ──< notified_rows
                          └──< reviews                 └── versions: model, its reading, sentinels
                                                           and settings that a result holds for
    records ──< signatures        the chain of what was found and decided (`chain_tables`)
    schedules, notices            when audits are due, and that they did not come (`notice_tables`)
    probe_looks                   which trained checkpoints could not be probed (`notice_tables`)
    assignments, proposals, agreements, commented_rows       people who review together
                                                             (`team_tables`)

A row is a content: `rows.id` is the example's id (SHA-256 of what is trained on; of its bytes where
it cannot be read), and each position of a file that holds this content is a place. A content may
come in several bytes, which differ in fields that are not trained on: those it came in first are
the row's own, all others are variants. Contents are audited, bytes are released. What audits found
and people decided is only ever added; a row's status and verdict follow from it (`row_states`).
Changes of the tables are migrations (`migrations/`, Alembic), applied when a ledger is opened
(`database`). The last three say who is at work, and are no evidence.
"""

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from poisonwatch.ledger import notice_tables as notice_tables
from poisonwatch.ledger import team_tables as team_tables
from poisonwatch.ledger.chain_tables import metadata as metadata
from poisonwatch.ledger.outbox_tables import deliveries as deliveries
from poisonwatch.ledger.outbox_tables import outages as outages

# a file of an audit's source; a query or a split of a data set counts as one
files = Table(
    "files",
    metadata,
    Column("file", Integer, primary_key=True),
    # name of the audit whose source this is
    Column("audit", String(200), nullable=False),
    Column("name", Text, nullable=False),
    # of the version that was read last
    Column("fingerprint", Text),
    # how far it was read
    Column("mark", Text),
    # the settings it was read with, as JSON
    Column("reading", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("read_at", String(32), nullable=False),
    # since when the source has it no more
    Column("gone_at", String(32)),
    # how its rows were read: one that grows is read on as it began
    Column("shape", ForeignKey("shapes.shape")),
    UniqueConstraint("audit", "name"),
)

# how the bytes of rows are read again: their format, and the schema of columnar files
shapes = Table(
    "shapes",
    metadata,
    Column("shape", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    # name, fields and template, as JSON
    Column("format", Text, nullable=False),
    # Arrow schema of columnar files
    Column("schema", LargeBinary),
)

# a content, whatever places it has
rows = Table(
    "rows",
    metadata,
    Column("row", Integer, primary_key=True),
    Column("id", LargeBinary(32), nullable=False, unique=True),
    Column("raw", LargeBinary, nullable=False),
    # SHA-256 of raw
    Column("digest", LargeBinary(32), nullable=False),
    Column("shape", ForeignKey("shapes.shape"), nullable=False),
    # why it cannot be read
    Column("problem", Text),
    # pending, rejected, clean, flagged, released, poison, repaired
    Column("status", String(10), nullable=False),
    # the last verdict of a person that settles it: poison, benign, flip or edit
    Column("decided", String(10)),
    Column("first_seen", String(32), nullable=False),
    # the content that stood here before it was edited
    Column("replaces", ForeignKey("rows.row")),
    # a variant: the bytes that stood at the place that it had last; none: the row's own
    Column("last_variant", Integer),
    Index("rows_by_status", "status"),
)

# other bytes of a content than those it came in first
variants = Table(
    "variants",
    metadata,
    Column("variant", Integer, primary_key=True),
    Column("row", ForeignKey("rows.row"), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    # SHA-256 of raw
    Column("digest", LargeBinary(32), nullable=False),
    Column("shape", ForeignKey("shapes.shape"), nullable=False),
    Column("first_seen", String(32), nullable=False),
    Index("variants_by_row", "row"),
    Index("variants_by_digest", "digest"),
)

# where a content is, or was
places = Table(
    "places",
    metadata,
    Column("file", ForeignKey("files.file"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("row", ForeignKey("rows.row"), nullable=False),
    # for people: the line, or the row's number
    Column("place", Text, nullable=False),
    # the bytes that stand here; none: the row's own
    Column("variant", ForeignKey("variants.variant")),
    # with the variant: how often bytes stand is answered from it alone
    Index("places_by_row", "row", "variant"),
    sqlite_with_rowid=False,
)

# what a result holds for
versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sentinels", String(64), nullable=False),
    # how the model reads rows; none: recorded by a version of this library that did not say
    Column("reading", String(64)),
    # the settings that shape verdicts, as JSON (`verdict_settings`); none as of the reading
    Column("settings", Text),
    UniqueConstraint("model", "sentinels", "reading", "settings"),
)

audits = Table(
    "audits",
    metadata,
    Column("audit", Integer, primary_key=True),
    Column("audit_id", String(40), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("version", ForeignKey("versions.version"), nullable=False),
    # running, committed (its run directory is not in place yet), finished, interrupted
    Column("state", String(12), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("run_dir", Text, nullable=False),
    # as JSON
    Column("summary", Text),
    # Prefect's id of the flow run
    Column("flow_run", String(40)),
    Index("audits_by_name", "name", "audit"),
)

# a row that passed validation, by an audit of it: rows are added, never changed; the last audit
# under a version has the last word under it
results = Table(
    "results",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("version", ForeignKey("versions.version"), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("flagged", Integer, nullable=False),
    Index("results_by_audit", "audit"),
    sqlite_with_rowid=False,
)

# a row that failed validation, or that could not be measured, by an audit of it under these
# settings: rows are added, never changed
rejections = Table(
    "rejections",
    metadata,
    Column("row", ForeignKey("rows.row"), primary_key=True),
    # digest of the validation settings, or of what it was to be measured by
    Column("checks", String(64), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("expectation", Text, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)

# every flag of every audit: a row that is flagged again has one more
flags = Table(
    "flags",
    metadata,
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Column("panel", Text, nullable=False),
    Column("sentinel", Text, nullable=False),
    Column("severity", String(10), nullable=False),
    Column("score", Float, nullable=False),
    Column("q", Float, nullable=False),
    # the line of flags.jsonl
    Column("record", Text, nullable=False),
    # the line of evidence.jsonl, from 1; none where it was not grouped
    Column("group", Integer),
    Index("flags_by_row", "row", "audit"),
)

# a chain (`ledger.decisions`): rows are added, never changed
decisions = Table(
    "decisions",
    metadata,
    # 1, 2, 3, ...: a gap is a deletion
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("row", ForeignKey("rows.row"), nullable=False),
    Column("example_id", String(64), nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("note", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("decided_at", String(32), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    # of what the row becomes, where the verdict changes it (`repairs`)
    Column("repaired_id", LargeBinary(32)),
    # what an edit has it say
    Column("answer", Text),
    Index("decisions_by_row", "row"),
    Index("decisions_by_repaired_id", "repaired_id"),
)

# messages about flagged rows
alerts = Table(
    "alerts",
    metadata,
    Column("alert", Integer, primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    # in the message, so that a receiver knows a repeated one
    Column("key", String(16), nullable=False, unique=True),
    # cluster, digest; reminder, unmuted: written after the audit
    Column("kind", String(10), nullable=False),
    Column("severity", String(10), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("alerts_by_audit", "audit"),
)

# the rows that an alert is about, so that nobody is notified of them again
notified_rows = Table(
    "notified_rows",
    metadata,
    Column("alert", ForeignKey("alerts.alert"), primary_key=True),
    Column("row", ForeignKey("rows.row"), primary_key=True),
    Index("notified_rows_by_row", "row"),
)

# rows that people look at in MLflow
reviews = Table(
    "reviews",
    metadata,
    # the row in MLflow
    Column("trace", String(64), primary_key=True),
    Column("audit", ForeignKey("audits.audit"), nullable=False),
    Column("row", ForeignKey("rows.row"), nullable=False),
    # the answer that was recorded last: ID#NUMBER (`reviews`)
    Column("answer", String(64)),
    Index("reviews_by_row", "row"),
)

# who may write as the audit of a name (`ledger.locks`)
audit_locks = Table(
    "audit_locks",
    metadata,
    Column("name", String(200), primary_key=True),
    # one more each time that somebody takes the lock: whoever has an earlier one has lost it
    Column("token", Integer, nullable=False),
    # 1 until it is given back; it stays so where the holder dies
    Column("held", Integer, nullable=False),
)

# the rows that an audit at work will come to results on (`ledger.claims`)
claimed_rows = Table(
    "claimed_rows",
    metadata,
    Column("audit", ForeignKey("audits.audit"), primary_key=True),
    Column("rows", LargeBinary, nullable=False),
)

# what was committed lately on PostgreSQL: a mark for each transaction (`ledger.transactions`)
commits = Table(
    "commits",
    metadata,
    Column("mark", String(32), primary_key=True),
    Column("committed_at", String(32), nullable=False),
)
