"""Decisions that change a row, against the row: what it becomes is computed again."""

from collections.abc import Iterator

from sqlalchemy import Connection

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import Decision, read_decisions_in
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.queries import find_row_number
from poisonwatch.ledger.repairs import Repair, read_versions, repair_bytes
from poisonwatch.ledger.row_states import REPAIRS
from poisonwatch.verification.rows import ID_DIGITS


def check_repairs(connection: Connection) -> Iterator[Difference]:
    """That each such decision names what the bytes of its row become."""
    for decision in read_decisions_in(connection):
        if decision.verdict in REPAIRS:
            yield from _check_repair(connection, decision)


def _check_repair(connection: Connection, decision: Decision) -> Iterator[Difference]:
    row = find_row_number(connection, decision.example_id)
    if row is None:
        # The check of decisions names it.
        return
    # Of the bytes that it came in first; others may have come since.
    raw, shape = next(read_versions(connection, row))
    try:
        found = repair_bytes(raw, shape, Repair(decision.verdict, decision.answer)).example.id
    except InputError:
        found = "what cannot be changed"
    if found != decision.repaired_id:
        expected = (decision.repaired_id or "nothing")[:ID_DIGITS]
        name = f"decision {decision.number}: what the row becomes"
        yield Difference(name, expected, found[:ID_DIGITS])
