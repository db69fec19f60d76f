"""What was pruned of past audits, on record in the chain: nobody takes a run directory that is gone
for one that was lost, or one that was lost for one that was pruned.

The statement is about the run directory, by its seal, and is recorded before anything is removed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from poisonwatch import __version__
from poisonwatch.attestation.signer import Signer
from poisonwatch.ledger.audit_records import RUN_DIRECTORY
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched
from poisonwatch.ledger.records import append_record

PRUNED = "pruned"
OPERATORS = "operators"  # of a run directory, of which the rest stayed


def append_pruned(
    connection: Connection,
    audit_id: str,
    part: str,
    seal: str | None,
    said: Mapping[str, Any],
    signer: Signer | None,
) -> None:
    """Append that a part of an audit (RUN_DIRECTORY or OPERATORS) is pruned, in a transaction that
    writes; `said` is why. Raises what `append_record` raises.
    """
    subjects = {} if seal is None else {RUN_DIRECTORY: seal}
    predicate = {"audit_id": audit_id, "part": part, "poisonwatch": __version__, **said}
    append_record(connection, PRUNED, _name_item(part, audit_id), subjects, predicate, signer)


def find_pruned(
    connection: Connection, audit_ids: Iterable[str], part: str = RUN_DIRECTORY
) -> dict[str, str]:
    """When a part of these audits was pruned, by audit id; those of which it was not are left
    out.
    """
    found: dict[str, str] = {}
    for some in batched(audit_ids, VALUES_PER_STATEMENT):
        items = {_name_item(part, audit_id): audit_id for audit_id in some}
        query = select(records.c.item, records.c.recorded_at).where(
            records.c.kind == PRUNED, records.c.item.in_(list(items))
        )
        for item, recorded_at in connection.execute(query.order_by(records.c.number)).tuples():
            found.setdefault(items[item or ""], recorded_at)
    return found


def _name_item(part: str, audit_id: str) -> str:
    return f"{part} {audit_id}"
