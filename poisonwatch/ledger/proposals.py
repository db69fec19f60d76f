"""What one person proposes, while it waits for a second one to say the same: a record of the chain
(`two_people`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.records import Record, find_record_by_number
from poisonwatch.ledger.tables import decisions, rows
from poisonwatch.ledger.transactions import retried


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one person says of rows (example ids), by the number of its record; and the `answer` of
    an edit.
    """

    number: int
    rows: tuple[str, ...]
    verdict: str
    note: str
    author: str
    proposed_at: str
    answer: str | None = None

    def record(self) -> dict[str, Any]:
        """As JSON; an answer only where there is one."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def read_proposal(record: Record) -> Proposal:
    """A proposal by its record."""
    said = record.statement.predicate
    return Proposal(
        number=record.number,
        rows=tuple(said["rows"]),
        verdict=said["verdict"],
        note=said["note"],
        author=said["author"],
        proposed_at=said["chain"]["recorded_at"],
        answer=said.get("answer"),
    )


def digest_proposed(said: Mapping[str, Any]) -> str:
    """The digest of what a proposal says, which its record is on."""
    told = ("rows", "verdict", "note", "author", "answer")
    return hash_text(write_canonical({key: said[key] for key in told if key in said}))


def find_answer(connection: Connection, proposal: int) -> str | None:
    """The answer of a proposal to edit."""
    record = find_record_by_number(connection, proposal)
    return None if record is None else record.statement.predicate.get("answer")


@retried
def find_decided_otherwise(ledger: Ledger, proposal: Proposal) -> dict[str, str]:
    """What is decided otherwise of the rows of a proposal, and gives way once a second person
    agrees: verdicts by example id. `unsure` is no decision that one could miss.
    """
    last = (
        select(func.max(decisions.c.number))
        .where(decisions.c.row == rows.c.row)
        .correlate(rows)
        .scalar_subquery()
    )
    is_same = (decisions.c.verdict == proposal.verdict) & decisions.c.answer.is_not_distinct_from(
        proposal.answer
    )
    query = (
        select(rows.c.id, decisions.c.verdict)
        .select_from(rows.join(decisions, decisions.c.number == last))
        .where(decisions.c.verdict != "unsure", ~is_same)
    )
    found: dict[str, str] = {}
    with ledger.read() as connection:
        for some in batched(map(bytes.fromhex, proposal.rows), VALUES_PER_STATEMENT):
            for id, verdict in connection.execute(query.where(rows.c.id.in_(some))).tuples():
                found[bytes(id).hex()] = verdict
    return found
