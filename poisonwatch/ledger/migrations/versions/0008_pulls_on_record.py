"""What was pulled before there was a record of it is adopted: how each file is now."""

from alembic import op

from poisonwatch.ledger.audit_records import ADOPTED_NOTE
from poisonwatch.ledger.pull_records import adopt_files

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    adopt_files(op.get_bind(), ADOPTED_NOTE)
