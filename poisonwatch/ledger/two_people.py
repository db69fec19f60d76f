"""Verdicts that two people must agree on before they count (`review: {two_people: high}`).

What one person says of rows is a proposal. Once another one says the same of a row, it is decided;
whoever says something else makes a proposal, too. `unsure` needs nobody else: it leaves a row in
quarantine.

    proposal     what one person says of rows
    agreement    decisions that a second person's word made, each with the proposal that it follows
    withdrawal   that a proposal waits no more

People are told apart by their names: they are worth what those of the dashboard's users are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from poisonwatch.attestation.signer import Signer
from poisonwatch.attestation.statement import hash_text
from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.decisions import (
    VERDICTS,
    Decision,
    append_decision,
    compute_change,
    find_rows,
    revert_decisions,
)
from poisonwatch.ledger.group_severities import find_group_severities
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, insert_all
from poisonwatch.ledger.proposals import Proposal, digest_proposed, find_answer, read_proposal
from poisonwatch.ledger.records import (
    DECISION,
    append_record,
    find_record,
    find_record_by_number,
    lock_chain,
)
from poisonwatch.ledger.row_states import REPAIRS
from poisonwatch.ledger.tables import decisions, files, places, rows
from poisonwatch.ledger.team_tables import agreements, proposals
from poisonwatch.ledger.transactions import retried
from poisonwatch.review_config import TwoPeople, needs_two
from poisonwatch.text.display import excerpt
from poisonwatch.text.names import fold_name
from poisonwatch.text.words import plural

PROPOSAL, AGREEMENT, WITHDRAWAL = "proposal", "agreement", "withdrawal"  # kinds of records
GRAVEST = SEVERITIES[-1]
LONGEST_PERSON = 200  # characters of a name as it is compared

FoundRow = Row[tuple[int, bytes, str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verdict came to: decisions, and a proposal on the rows that wait for somebody else;
    neither, where the same person has said the same of all of them before.
    """

    decisions: list[Decision]
    proposal: Proposal | None

    def require_news(self) -> None:
        """Raises InputError where there is neither."""
        if not self.decisions and self.proposal is None:
            raise InputError(
                "you have said so already: these rows wait for another person to say the same"
            )


@retried
def submit_verdict(
    ledger: Ledger,
    names: Sequence[str],
    verdict: str,
    note: str = "",
    author: str = "",
    *,
    two_people: TwoPeople = "none",
    unflagged: bool = True,
    answer: str | None = None,
) -> Outcome:
    """Say what rows are, named as `decisions.record_decisions` takes them, where decisions need
    what `two_people` asks: of all of them, or of none.

    Raises what `record_decisions` does, and InputError where it takes two and there is no author.
    """
    with ledger.write() as connection:
        found = find_rows(connection, names, unflagged)
        said: dict[str, Any] = {"verdict": verdict, "note": note, "author": author}
        rules: dict[str, Any] = {"two_people": two_people, "signer": ledger.signer}
        return submit_on_rows(connection, found, **rules, **said, answer=answer)


def submit_on_rows(
    connection: Connection,
    found: Sequence[FoundRow],
    *,
    verdict: str,
    note: str,
    author: str,
    two_people: TwoPeople,
    signer: Signer | None,
    answer: str | None = None,
) -> Outcome:
    """`submit_verdict` within a transaction, on rows (row, id, status) that were found."""
    said: dict[str, Any] = {"verdict": verdict, "note": note, "author": author}
    if answer is not None:
        said["answer"] = answer
    lock_chain(connection)
    made: list[Decision] = []
    followed: dict[int, int] = {}  # proposals by the decisions that follow them
    waiting: list[FoundRow] = []
    severity_of = find_group_severities(connection, [row.row for row in found])
    for row in found:
        takes_two = _takes_two(two_people, verdict, severity_of.get(row.row, ""))
        other = _find_same_verdict(connection, row.row, said) if takes_two else None
        if takes_two and other is None:
            # Nobody waits for somebody to agree on what cannot be.
            compute_change(connection, row.row, verdict, answer)
            waiting.append(row)
            continue
        decision = append_decision(connection, row, signer=signer, **said)
        made.append(decision)
        if other is not None:
            followed[decision.number] = other
    if followed:
        _append_agreement(connection, made, followed, author, signer)
    if not waiting:
        return Outcome(made, None)
    new = _leave_out_said(connection, waiting, said)
    return Outcome(made, _append_proposal(connection, new, said, signer) if new else None)


@retried
def revert_submitted(
    ledger: Ledger, numbers: Sequence[int], author: str, two_people: TwoPeople
) -> list[Decision]:
    """Take decisions back as `decisions.revert_decisions` does; where it takes two people to decide
    again what was decided before, rows are unsure.
    """
    with ledger.read() as connection:
        by_number = _find_rows_of_decisions(connection, numbers)
        severity_of = find_group_severities(connection, list(by_number.values()))
        before = _find_verdicts_before(connection, by_number)
    # What is restored counts, not what is taken back: a repair takes two on any row.
    lone = {
        number
        for number, row in by_number.items()
        if _takes_two(two_people, before.get(number, "unsure"), severity_of.get(row, ""))
    }
    return revert_decisions(ledger, numbers, author, to_unsure=lone)


@retried
def withdraw_proposal(ledger: Ledger, number: int, author: str) -> int:
    """Take back what one has proposed, by the number of its record: of how many rows, those that
    still wait. Raises InputError where there is no such proposal of this author that waits.
    """
    with ledger.write() as connection:
        lock_chain(connection)
        mine = (proposals.c.record == number) & (proposals.c.person == fold_person(author))
        count = connection.execute(delete(proposals).where(mine)).rowcount
        if not count:
            raise InputError(
                f"{excerpt(author, 60)} has no proposal {number} that waits for a second person"
            )
        subjects = {f"proposal {number}": hash_text(str(number))}
        said = {"proposal": number, "author": author}
        append_record(connection, WITHDRAWAL, str(number), subjects, said, ledger.signer)
        return count


def find_lone_decisions(
    connection: Connection, numbers: Sequence[int], two_people: TwoPeople
) -> list[str]:
    """Example ids of those of these rows that are cleared by the word of one person, where it takes
    two.
    """
    if two_people == "none":
        return []
    lone: dict[int, tuple[str, str]] = {}  # id and verdict by row
    last = select(func.max(decisions.c.number)).where(decisions.c.row == rows.c.row)
    query = (
        select(rows.c.row, rows.c.id, rows.c.decided)
        .select_from(rows)
        .outerjoin(agreements, agreements.c.decision == last.scalar_subquery())
        .where(rows.c.decided.is_not(None), rows.c.decided != "poison")
        .where(agreements.c.decision.is_(None))
    )
    for some in batched(numbers, VALUES_PER_STATEMENT):
        for row, id, verdict in connection.execute(query.where(rows.c.row.in_(some))).tuples():
            lone[row] = (bytes(id).hex(), verdict)
    severity_of = find_group_severities(connection, list(lone))
    return [
        id
        for row, (id, verdict) in lone.items()
        if _takes_two(two_people, verdict, severity_of.get(row, ""))
    ]


@retried
def require_two_people(ledger: Ledger, name: str, two_people: TwoPeople) -> None:
    """Raises InputError where rows of an audit's source are cleared by the word of one person, and
    it takes two.
    """
    here = (
        select(places.c.row)
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name, files.c.gone_at.is_(None))
    )
    decided = select(rows.c.row).where(rows.c.decided.is_not(None), rows.c.row.in_(here))
    with ledger.read() as connection:
        numbers = connection.execute(decided).scalars().all()
        lone = find_lone_decisions(connection, numbers, two_people)
    if lone:
        raise InputError(
            f"{plural(len(lone), 'row')} would be released by one person's word, where two must "
            f"agree (review.two_people: {two_people}), such as {lone[0][:16]}: have a second "
            "person say the same, or call them unsure"
        )


def fold_person(name: str) -> str:
    """A name as people are told apart by it. Raises InputError where it is none."""
    folded = fold_name(name)
    if not folded or len(folded) > LONGEST_PERSON:
        raise InputError(
            "two people must agree on this decision: say who decides, in at most "
            f"{LONGEST_PERSON} characters"
        )
    return folded


def _takes_two(two_people: TwoPeople, verdict: str, severity: str) -> bool:
    """Whether a verdict on a row of a group of this severity waits for a second person.

    A repair is as grave as a row can be: no audit looks at the text that it puts into releases.
    """
    # One person's word is enough to leave a row where it is, and none makes a verdict of what is
    # none.
    if verdict == "unsure" or verdict not in (*VERDICTS, *REPAIRS):
        return False
    return needs_two(two_people, GRAVEST if verdict in REPAIRS else severity)


def _find_rows_of_decisions(connection: Connection, numbers: Iterable[int]) -> dict[int, int]:
    found = {}
    for number in numbers:
        query = select(decisions.c.row).where(decisions.c.number == number)
        row = connection.execute(query).scalar_one_or_none()
        if row is not None:
            found[number] = row
    return found


def _find_verdicts_before(connection: Connection, by_number: Mapping[int, int]) -> dict[int, str]:
    """What was decided on the rows of decisions before these; those that are the first are left
    out.
    """
    found = {}
    for number, row in by_number.items():
        earlier = (decisions.c.row == row) & (decisions.c.number < number)
        query = select(decisions.c.verdict).where(earlier).order_by(decisions.c.number.desc())
        verdict = connection.execute(query.limit(1)).scalar_one_or_none()
        if verdict is not None:
            found[number] = verdict
    return found


def _find_same_verdict(connection: Connection, row: int, said: Mapping[str, Any]) -> int | None:
    """The record of what somebody else said of a row, where it is the same: the decision that one
    person made before two were asked for, or a proposal.
    """
    verdict, author, answer = said["verdict"], said["author"], said.get("answer")
    last = (
        select(decisions.c.number, decisions.c.verdict, decisions.c.author, decisions.c.answer)
        .where(decisions.c.row == row)
        .order_by(decisions.c.number.desc())
        .limit(1)
    )
    decided = connection.execute(last).one_or_none()
    is_same = decided is not None and (decided.verdict, decided.answer) == (verdict, answer)
    if decided is not None and is_same and decided.author.strip():
        record = find_record(connection, DECISION, str(decided.number))
        if record is not None and fold_person(decided.author) != fold_person(author):
            return record.number
    query = (
        select(proposals.c.record)
        .where(proposals.c.row == row, proposals.c.verdict == verdict)
        .where(proposals.c.person != fold_person(author))
        .order_by(proposals.c.record)
    )
    numbers: Sequence[int] = connection.execute(query).scalars().all()
    for number in numbers:
        if find_answer(connection, number) == answer:
            return number
    return None


def _leave_out_said(
    connection: Connection, waiting: Sequence[FoundRow], said: Mapping[str, Any]
) -> list[FoundRow]:
    """The rows of which a person has not said this yet."""
    is_mine = proposals.c.person == fold_person(said["author"])
    query = select(proposals.c.row, proposals.c.record)
    mine = connection.execute(query.where(is_mine, proposals.c.verdict == said["verdict"]))
    record_of = dict(mine.tuples().all())
    answer_of = {number: find_answer(connection, number) for number in set(record_of.values())}
    return [
        row
        for row in waiting
        if row.row not in record_of or answer_of[record_of[row.row]] != said.get("answer")
    ]


def _append_proposal(
    connection: Connection,
    waiting: Sequence[FoundRow],
    said: Mapping[str, str],
    signer: Signer | None,
) -> Proposal:
    ids = sorted(bytes(row.id).hex() for row in waiting)
    predicate = {"rows": ids, **said}
    subjects = {f"{said['verdict']} proposed": digest_proposed(predicate)}
    number = append_record(connection, PROPOSAL, None, subjects, predicate, signer).number
    person = fold_person(said["author"])
    values = []
    for row in waiting:
        # A second thought takes the place of the first.
        mine = (proposals.c.row == row.row) & (proposals.c.person == person)
        connection.execute(delete(proposals).where(mine))
        value = {"row": row.row, "person": person, "author": said["author"]}
        values.append({**value, "verdict": said["verdict"], "record": number})
    insert_all(connection, proposals, values)
    record = find_record_by_number(connection, number)
    assert record is not None
    return read_proposal(record)


def _append_agreement(
    connection: Connection,
    made: Sequence[Decision],
    followed: Mapping[int, int],
    author: str,
    signer: Signer | None,
) -> None:
    """Append that decisions are what two people say; they are in the chain already."""
    subjects = {f"decision {each.number}": each.hash for each in made if each.number in followed}
    pairs = [[decision, proposal] for decision, proposal in followed.items()]
    said = {"agreed": pairs, "author": author}
    first = str(min(followed))
    number = append_record(connection, AGREEMENT, first, subjects, said, signer).number
    values = []
    for decision, proposal in followed.items():
        value = {"decision": decision, "proposal": proposal, "record": number}
        values.append({**value, "proposer": _find_proposer(connection, proposal)})
    connection.execute(insert(agreements), values)


def _find_proposer(connection: Connection, number: int) -> str:
    record = find_record_by_number(connection, number)
    return "" if record is None else str(record.statement.predicate["author"])
