"""Decisions against their records, and against the rows that they are on."""

from collections.abc import Iterator

from sqlalchemy import Connection, desc, select

from poisonwatch.errors import InputError
from poisonwatch.ledger.audit_records import EARLIER_DECISIONS, read_decisions_head
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.decisions import Decision, describe_decision, read_decisions_in
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.records import (
    ADOPTED,
    CHAIN_START,
    DECISION,
    ChainHead,
    Record,
    find_record,
    read_records,
)
from poisonwatch.ledger.tables import decisions, rows

ROWS_PER_READ = 1000


def check_decisions(connection: Connection) -> Iterator[Difference]:
    """The differences of all decisions: from the chain that they are, from their records, and from
    their rows.
    """
    earlier = _find_adopted_head(connection)
    made = _read_made(connection)
    previous, expected = CHAIN_START, 1
    for decision in read_decisions_in(connection):
        name = f"decision {decision.number}"
        if decision.number != expected:
            yield Difference(f"decision {expected}", "a decision", "none")
        elif decision.previous != previous:
            yield Difference(f"{name}: the one before it", decision.previous[:16], previous[:16])
        if decision.compute_hash() != decision.hash:
            yield Difference(f"{name}: hash", "that of what it says", decision.hash[:16])
        if decision.number > earlier.number:
            record = next(made, None)
            yield from _compare(decision, record)
        elif decision.number == earlier.number and decision.hash != earlier.hash:
            yield Difference(f"{name}: hash", earlier.hash[:16], decision.hash[:16])
        previous, expected = decision.hash, decision.number + 1
    if expected <= earlier.number:
        yield Difference(f"decision {earlier.number}", "a decision", "none")
    for record in made:
        yield Difference(f"decision {record.item}", "a decision", "its record alone")
    yield from check_decided_rows(connection)


def _compare(decision: Decision, record: Record | None) -> Iterator[Difference]:
    name = f"decision {decision.number}"
    if record is None or record.item != str(decision.number):
        yield Difference(name, "a record of the chain", "none")
        return
    subjects, said = describe_decision(decision)
    recorded = {**record.statement.predicate}
    recorded.pop("chain", None)
    if (dict(record.statement.subjects), recorded) != (subjects, said):
        yield Difference(name, "what its record says", "something else")


def _read_made(connection: Connection) -> Iterator[Record]:
    """The records of decisions, up to the first that is none."""
    try:
        yield from read_records(connection, DECISION)
    except InputError:
        # The chain's own check names it.
        return


def check_decisions_end(connection: Connection) -> Iterator[Difference]:
    """That the last decision is the last one of the records: with the chain that decisions are
    (`verify_chain`), all are as they were recorded.
    """
    recorded = _find_recorded_head(connection)
    found = read_decisions_head(connection)
    if found != recorded:
        yield Difference("the last decision", _show(recorded), _show(found))


def _show(head: ChainHead) -> str:
    return f"number {head.number}, {head.hash[:16]}"


def _find_recorded_head(connection: Connection) -> ChainHead:
    last = (
        select(records.c.item)
        .where(records.c.kind == DECISION)
        .order_by(desc(records.c.number))
        .limit(1)
    )
    item = connection.execute(last).scalar_one_or_none()
    if item is None:
        return _find_adopted_head(connection)
    record = find_record(connection, DECISION, item)
    said = record.statement.predicate if record else {}
    return ChainHead(said.get("number", 0), said.get("hash", ""))


def _find_adopted_head(connection: Connection) -> ChainHead:
    """The last decision that is older than the chain of records."""
    adopted = find_record(connection, ADOPTED, EARLIER_DECISIONS)
    if adopted is None:
        return ChainHead(0, CHAIN_START)
    return ChainHead(**adopted.statement.predicate["decisions"])


def check_decided_rows(connection: Connection) -> Iterator[Difference]:
    """That each decision is on the row that it names."""
    query = (
        select(decisions.c.number, decisions.c.example_id, rows.c.id)
        .outerjoin(rows, rows.c.row == decisions.c.row)
        .order_by(decisions.c.number)
    )
    found = connection.execute(query.execution_options(yield_per=ROWS_PER_READ))
    for number, example_id, id in found.tuples():
        of_row = "no row" if id is None else bytes(id).hex()
        if of_row != example_id:
            yield Difference(f"decision {number}: row", example_id[:16], of_row[:16])
