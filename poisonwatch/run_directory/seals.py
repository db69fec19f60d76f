"""What the ledger has on record of a run directory: its seal, by which a file that was changed
together with its checksum is found.
"""

from poisonwatch.config import AuditConfig
from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.audit_records import RUN_DIRECTORY, find_audit_record
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.read_only import open_to_read
from poisonwatch.ledger.transactions import retried


@retried
def find_seal(ledger: Ledger, audit_id: str) -> str | None:
    """The seal of an audit's run directory; None where the ledger has no record of it, or of an
    audit from before run directories were sealed. Raises InputError where the record was changed.
    """
    with ledger.read() as connection:
        record = find_audit_record(connection, audit_id)
    if record is None:
        return None
    return record.statement.subjects.get(RUN_DIRECTORY)


def find_own_seal(config: AuditConfig) -> str | None:
    """The seal of the run directory that these settings lie in; None also where the ledger that
    they name is gone, or on another machine.
    """
    audit_id = config.replay.audit_id
    if audit_id is None:
        return None
    try:
        with open_to_read(config.state) as ledger:
            return find_seal(ledger, audit_id)
    except PoisonwatchError:
        return None
