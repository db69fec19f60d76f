"""What is kept of people who review together against the chain: who has which rows, which comments
are on them, what waits for a second person, and which decisions two people agree on.

The records are gone through once, oldest first, and come to what the tables must hold.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Select, select

from poisonwatch.attestation.statement import hash_text
from poisonwatch.ledger.assignments import ASSIGNMENT, describe_assigned, digest_assigned
from poisonwatch.ledger.comments import COMMENT, digest_comment
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.proposals import digest_proposed
from poisonwatch.ledger.records import DECISION, Record, read_records
from poisonwatch.ledger.tables import rows
from poisonwatch.ledger.team_tables import agreements, assignments, commented_rows, proposals
from poisonwatch.ledger.two_people import (
    AGREEMENT,
    PROPOSAL,
    WITHDRAWAL,
    fold_person,
)

KINDS = (ASSIGNMENT, COMMENT, PROPOSAL, AGREEMENT, WITHDRAWAL, DECISION)


class _Replay:
    """What the records come to, as the tables hold it."""

    def __init__(self) -> None:
        self.assigned: dict[str, tuple[Any, ...]] = {}
        self.commented: set[tuple[int, str]] = set()
        self._waiting: dict[str, dict[str, tuple[Any, ...]]] = {}
        self.agreed: dict[int, tuple[Any, ...]] = {}
        self._proposed: dict[int, Mapping[str, Any]] = {}
        self._decided: dict[int, Mapping[str, Any]] = {}

    def take(self, record: Record) -> Iterator[Difference]:
        """Go on by a record: what is wrong with it."""
        takers = {
            ASSIGNMENT: self._take_assignment,
            COMMENT: self._take_comment,
            PROPOSAL: self._take_proposal,
            AGREEMENT: self._take_agreement,
            WITHDRAWAL: self._take_withdrawal,
            DECISION: self._take_decision,
        }
        yield from takers[record.kind](record, record.statement.predicate)

    def _take_assignment(self, record: Record, said: Mapping[str, Any]) -> Iterator[Difference]:
        yield from _check_subject(record, digest_assigned(said))
        for row in said["rows"]:
            self.assigned.pop(row, None)
            if said["assignee"]:
                kept = describe_assigned(said)
                self.assigned[row] = (*kept.values(), record.number)

    def _take_comment(self, record: Record, said: Mapping[str, Any]) -> Iterator[Difference]:
        yield from _check_subject(record, digest_comment(said))
        self.commented |= {(record.number, row) for row in said["rows"]}

    def _take_proposal(self, record: Record, said: Mapping[str, Any]) -> Iterator[Difference]:
        yield from _check_subject(record, digest_proposed(said))
        self._proposed[record.number] = said
        for row in said["rows"]:
            person = fold_person(said["author"])
            kept = (said["author"], said["verdict"], record.number)
            self._waiting.setdefault(row, {})[person] = kept

    def _take_withdrawal(self, record: Record, said: Mapping[str, Any]) -> Iterator[Difference]:
        number = said["proposal"]
        yield from _check_subject(record, hash_text(str(number)))
        proposed = self._proposed.get(number)
        if proposed is None or fold_person(proposed["author"]) != fold_person(said["author"]):
            yield Difference(f"record {record.number}: its proposal", "one of its author", "none")
            return
        for row in proposed["rows"]:
            votes = self._waiting.get(row, {})
            self._waiting[row] = {who: vote for who, vote in votes.items() if vote[-1] != number}

    def _take_decision(self, record: Record, said: Mapping[str, Any]) -> Iterator[Difference]:
        self._decided[said["number"]] = said
        # A second person may follow what one decided, as they follow a proposal.
        self._proposed[record.number] = {**said, "rows": [said["example_id"]]}
        self._waiting.pop(said["example_id"], None)
        yield from ()

    def _take_agreement(self, record: Record, said: Mapping[str, Any]) -> Iterator[Difference]:
        for decision, proposal in said["agreed"]:
            name = f"agreement on decision {decision}"
            made, proposed = self._decided.get(decision), self._proposed.get(proposal)
            if made is None or proposed is None:
                yield Difference(name, "a decision and a proposal", "not both")
                continue
            if record.statement.subjects.get(f"decision {decision}") != made["hash"]:
                yield Difference(f"{name}: subject", "the decision", "another")
            same_row = made["example_id"] in proposed["rows"]
            same = all(made.get(key) == proposed.get(key) for key in ("verdict", "answer"))
            if not same_row or not same:
                yield Difference(name, "one verdict on one row", "two")
            if fold_person(made["author"]) == fold_person(proposed["author"]):
                yield Difference(name, "two people", "one")
            self.agreed[decision] = (proposal, proposed["author"], record.number)

    @property
    def waiting(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """The proposals that wait, by row and person."""
        found = {}
        for row, votes in self._waiting.items():
            found.update({(row, person): vote for person, vote in votes.items()})
        return found


def check_team(connection: Connection) -> Iterator[Difference]:
    """Records that are not what they say, and tables that are not what records come to."""
    replay = _Replay()
    for record in read_records(connection, *KINDS):
        yield from replay.take(record)
    said = assignments.c.assignee, assignments.c.person, assignments.c.taken, assignments.c.record
    query = select(rows.c.id, *said).join(rows, rows.c.row == assignments.c.row)
    found = {bytes(id).hex(): tuple(rest) for id, *rest in connection.execute(query)}
    yield from _compare("assignment of row", replay.assigned, found)
    yield from _compare("proposal on row", replay.waiting, dict(_read_waiting(connection)))
    kept = agreements.c.proposal, agreements.c.proposer, agreements.c.record
    query = select(agreements.c.decision, *kept)
    agreed = {decision: tuple(rest) for decision, *rest in connection.execute(query)}
    yield from _compare("agreement on decision", replay.agreed, agreed)
    query = select(commented_rows.c.record, rows.c.id).join(
        rows, rows.c.row == commented_rows.c.row
    )
    commented = {(number, bytes(id).hex()) for number, id in connection.execute(query)}
    for number, row in sorted(replay.commented ^ commented):
        yield Difference(f"comment {number} on row {row[:16]}", "what its record says", "another")


def _read_waiting(connection: Connection) -> Iterator[tuple[tuple[str, str], tuple[Any, ...]]]:
    said = proposals.c.author, proposals.c.verdict, proposals.c.record
    query: Select[Any] = select(rows.c.id, proposals.c.person, *said)
    for id, person, *rest in connection.execute(query.join(rows, rows.c.row == proposals.c.row)):
        yield (bytes(id).hex(), person), tuple(rest)


def _check_subject(record: Record, digest: str) -> Iterator[Difference]:
    if set(record.statement.subjects.values()) != {digest}:
        yield Difference(f"record {record.number}: subject", "what it says", "something else")


def _compare(
    what: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]
) -> Iterator[Difference]:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            name = key[0][:16] if isinstance(key, tuple) else str(key)[:16]
            yield Difference(f"{what} {name}", "what the records say", "something else")
