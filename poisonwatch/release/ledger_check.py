"""Whether a ledger may be believed: what a release or the gate rests on is compared with the
ledger's records before anything is said of a row.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import verify_decisions
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.foreign_code import refuse_foreign_code
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.pull_records import check_pulls
from poisonwatch.ledger.records import ChainHead, holds_head, read_head, verify_records
from poisonwatch.ledger.transactions import retried
from poisonwatch.verification.rows import check_rows


@retried
def check_chains(ledger: Ledger, head: str | None = None) -> ChainHead:
    """The end of a ledger's chain of records. Raises InputError where this chain, or that of
    decisions, was tampered with, or does not go through a `head` NUMBER:HASH.
    """
    asked = None if head is None else ChainHead.parse(head)
    with ledger.read() as connection:
        end = check_chains_in(connection)
        if asked is not None and not holds_head(connection, asked):
            raise InputError(
                "the ledger was cut off or replaced: it does not hold the head "
                f"{asked.number}:{asked.hash[:16]}, and ends at {end.number}:{end.hash[:16]}; "
                "restore the ledger from a backup"
            )
    return end


def check_chains_in(connection: Connection) -> ChainHead:
    """The same in a state of the ledger, whatever its head. Raises OperationError where the
    database makes up what is read.
    """
    refuse_foreign_code(connection)
    verify_decisions(connection)
    _refuse_differences(verify_records(connection))
    return read_head(connection)


@retried
def check_known_rows(ledger: Ledger, numbers: Collection[int]) -> None:
    """Raises InputError where what the ledger keeps of these rows, and of the files that hold them,
    is not what its records come to.
    """
    with ledger.read() as connection:
        check_known_rows_in(connection, numbers)


def check_known_rows_in(connection: Connection, numbers: Collection[int]) -> None:
    """The same in a state of the ledger."""
    _refuse_differences(check_rows(connection, sorted(numbers)))
    _refuse_differences(check_pulls(connection, numbers))


def _refuse_differences(found: Sequence[Difference]) -> None:
    if not found:
        return
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    raise InputError(
        f"the ledger is not what its records say ({found[0].words}){more}: `poisonwatch verify` "
        "names all; restore the ledger from a backup"
    )
