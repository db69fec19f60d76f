"""How people stand with a group of flagged rows: who has it, how far they are, what waits for a
second person, and what they said.

A group is decided where none of its rows waits, reopened where one is, in review where one is, and
else open (`stages`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from poisonwatch.ledger.assignments import find_members
from poisonwatch.ledger.comments import Comment, list_comments
from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.proposals import read_proposal
from poisonwatch.ledger.records import find_record_by_number
from poisonwatch.ledger.stages import IS_BEGUN, WAS_DECIDED
from poisonwatch.ledger.tables import decisions, rows
from poisonwatch.ledger.team_tables import agreements, assignments, proposals
from poisonwatch.ledger.transactions import retried

Stage = Literal["open", "in review", "reopened", "decided"]


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said of a row, which waits for a second person."""

    proposal: int
    verdict: str
    author: str
    note: str
    said_at: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class GroupTeam:
    """How people stand with a group: its `assignees`, each once; `votes` by the example id of each
    row that waits; `agreed` says who said the same as the person who decided, before them, by the
    numbers of decisions; `comments` are on any of its rows.
    """

    stage: Stage
    assignees: tuple[str, ...]
    votes: dict[str, tuple[Vote, ...]]
    agreed: dict[int, str]
    comments: tuple[Comment, ...]

    def list_votes(self) -> list[Vote]:
        """Every proposal on the group, once."""
        found = {vote.proposal: vote for votes in self.votes.values() for vote in votes}
        return [found[number] for number in sorted(found)]

    def count_rows(self, proposal: int) -> int:
        """How many rows of the group a proposal waits on."""
        return sum(
            any(vote.proposal == proposal for vote in votes) for votes in self.votes.values()
        )


@retried
def load_teams(
    ledger: Ledger, groups: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], GroupTeam]:
    """How people stand with each of these groups: audit id and key. Raises InputError where there
    is none.
    """
    with ledger.read() as connection:
        return {place: _load_team(connection, *place) for place in groups}


def _load_team(connection: Connection, audit_id: str, key: str) -> GroupTeam:
    numbers = [member.row for member in find_members(connection, audit_id, key)]
    return GroupTeam(
        stage=_find_stage(connection, numbers),
        assignees=_list_assignees(connection, numbers),
        votes=_list_votes(connection, numbers),
        agreed=list_agreed(connection, numbers),
        comments=tuple(list_comments(connection, numbers)),
    )


def _find_stage(connection: Connection, numbers: Sequence[int]) -> Stage:
    stage: Stage = "decided"
    query = select(IS_BEGUN.label("begun"), WAS_DECIDED.label("decided"))
    for some in batched(numbers, VALUES_PER_STATEMENT):
        for row in connection.execute(query.where(rows.c.row.in_(some), IS_UNDECIDED)):
            if row.decided:
                return "reopened"
            if row.begun:
                stage = "in review"
            elif stage == "decided":
                stage = "open"
    return stage


def _list_assignees(connection: Connection, numbers: Sequence[int]) -> tuple[str, ...]:
    found: set[str] = set()
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = select(assignments.c.assignee).where(assignments.c.row.in_(some)).distinct()
        found.update(connection.execute(query).scalars())
    return tuple(sorted(found))


def _list_votes(connection: Connection, numbers: Sequence[int]) -> dict[str, tuple[Vote, ...]]:
    found: dict[str, list[Vote]] = {}
    known: dict[int, Vote] = {}
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = (
            select(rows.c.id, proposals.c.record)
            .join(proposals, proposals.c.row == rows.c.row)
            .where(rows.c.row.in_(some))
            .order_by(proposals.c.record)
        )
        for id, number in connection.execute(query).tuples():
            if number not in known:
                known[number] = _read_vote(connection, number)
            found.setdefault(bytes(id).hex(), []).append(known[number])
    return {id: tuple(votes) for id, votes in found.items()}


def _read_vote(connection: Connection, number: int) -> Vote:
    record = find_record_by_number(connection, number)
    assert record is not None
    said = read_proposal(record)
    return Vote(number, said.verdict, said.author, said.note, said.proposed_at, said.answer)


def list_agreed(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    """Who said the same of these rows before the person who made a decision, by its number."""
    found: dict[int, str] = {}
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = (
            select(agreements.c.decision, agreements.c.proposer)
            .join(decisions, decisions.c.number == agreements.c.decision)
            .where(decisions.c.row.in_(some))
        )
        found.update(dict(connection.execute(query).tuples().all()))
    return found


@retried
def list_all_agreed(ledger: Ledger) -> dict[int, str]:
    """The same of all rows."""
    query = select(agreements.c.decision, agreements.c.proposer)
    with ledger.read() as connection:
        return dict(connection.execute(query).tuples().all())


@retried
def list_assignees(ledger: Ledger) -> list[str]:
    """Everybody who has rows that wait for a decision."""
    query = (
        select(assignments.c.assignee)
        .join(rows, rows.c.row == assignments.c.row)
        .where(IS_UNDECIDED)
        .distinct()
        .order_by(assignments.c.assignee)
    )
    with ledger.read() as connection:
        return list(connection.execute(query).scalars())
