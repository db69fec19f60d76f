"""Rows against what audits found in them and people decided on them: what the gate always checks of
the rows that it is asked for.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from sqlalchemy import Connection, func, select

from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched
from poisonwatch.ledger.pull_records import check_pulls
from poisonwatch.ledger.row_states import RowState, read_row_states
from poisonwatch.ledger.tables import results
from poisonwatch.verification.audits import UNREADABLE, check_audits
from poisonwatch.verification.decisions import check_decided_rows, check_decisions_end

ID_DIGITS = 16  # of an example id


def check_rows(connection: Connection, numbers: Iterable[int]) -> list[Difference]:
    """The differences that concern these rows (their numbers in the ledger), in one read
    transaction (`Ledger.read`).

    Status and verdict of each must follow from decisions and audits; decisions must be those that
    were recorded, on the rows that they name; and every audit from the first one that counts for
    these rows on must be what its record says: a later one whose word on a row was taken out leaves
    no trace on the row itself. To be asked beside `verify_chain` and `verify_records`, which hold
    the decisions and the records together. The files that hold the rows must be as they were
    pulled.
    """
    numbers = list(numbers)
    differences: list[Difference] = []
    first: int | None = None
    try:
        for some in batched(numbers, VALUES_PER_STATEMENT):
            differences.extend(check_states(read_row_states(connection, some)))
            earliest = select(func.min(results.c.audit)).where(results.c.row.in_(some))
            found = connection.execute(earliest).scalar_one()
            if found is not None:
                first = min(found, first or found)
        checks: list[Iterable[Difference]] = [
            check_decisions_end(connection),
            check_decided_rows(connection),
            check_pulls(connection, numbers),
        ]
        if first is not None:
            checks.append(check_audits(connection, first))
        differences.extend(chain.from_iterable(checks))
    except UNREADABLE as error:
        differences.append(Difference("the ledger", "what can be read", type(error).__name__))
    return differences


def check_states(states: Iterable[RowState]) -> Iterator[Difference]:
    """The rows whose status or verdict does not follow from what was found and decided."""
    for state in states:
        if state.is_right:
            continue
        expected = _show(state.derived_status, state.derived_decided)
        found = _show(state.status, state.decided)
        yield Difference(f"row {state.id[:ID_DIGITS]}: status", expected, found)


def _show(status: str, decided: str | None) -> str:
    return f"{status}, decided {decided or 'nothing'}"
