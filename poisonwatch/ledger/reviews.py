"""Flagged rows that people look at elsewhere: what the ledger knows of them.

A row under review has a trace in MLflow. It is added when the trace is in a queue; an answer is
recorded in the chain of decisions in the same transaction that remembers it, with the number of the
decision that it became, so that none is recorded twice. A row that was decided on elsewhere has a
word in place of the answer's id, once MLflow was told.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    and_,
    delete,
    desc,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import order_by_strength
from poisonwatch.ledger.tables import audits, decisions, flags, reviews, rows
from poisonwatch.ledger.transactions import retried
from poisonwatch.ledger.two_people import submit_on_rows
from poisonwatch.review_config import TwoPeople

# In place of an answer's id: the decision was made elsewhere, and MLflow was told of it.
ELSEWHERE = "elsewhere"
WAS_TOLD = reviews.c.answer.startswith(f"{ELSEWHERE}#")
HAS_NO_ANSWER = or_(reviews.c.answer.is_(None), WAS_TOLD)


@dataclass(frozen=True, slots=True)
class ReviewCandidate:
    """A flagged row that nobody has decided on: the last audit that flagged it, its number in the
    ledger, its line of flags.jsonl.

    `first_audit_id` is the first audit of that name that flagged it, `group` its group's number in
    the last one, if it has a group.
    """

    audit: int
    audit_id: str
    first_audit_id: str
    row: int
    record: Mapping[str, Any]
    run_id: str | None
    group: int | None = None

    @property
    def trace(self) -> str:
        """The id of its trace: it follows from audit and row, so that a trace that is logged again
        is the same, whatever came between.
        """
        return name_trace(self.first_audit_id, self.record["example_id"])


def name_trace(audit_id: str, example_id: str) -> str:
    """The id of the trace of a row, by the first audit of its name that flagged it."""
    name = f"{audit_id}/{example_id}"
    return f"tr-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class ReviewAnswer:
    """What a person said of a row: `id` tells it from every other answer, `answered_at_ms`
    is in milliseconds since 1970.
    """

    id: str
    verdict: str
    note: str
    author: str
    answered_at_ms: int


@dataclass(frozen=True, slots=True)
class ReviewChange:
    """What became elsewhere of a row under review, of which MLflow is not told yet: `decision` is
    the number of the last decision on it, by `author`; None where the row is open again.
    """

    trace: str
    decision: int | None
    author: str


@retried
def list_review_candidates(ledger: Ledger, name: str, most: int) -> list[ReviewCandidate]:
    """The flagged rows of an audit's name that are undecided and not under review yet, each once,
    strongest first; at most `most`.
    """
    reviewed = (
        select(reviews.c.row)
        .join(audits, audits.c.audit == reviews.c.audit)
        .where(audits.c.name == name)
    )
    first_number = func.min(flags.c.audit).label("first")
    last_number = func.max(flags.c.audit).label("last")
    spans = (
        select(flags.c.row, first_number, last_number)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.name == name)
        .group_by(flags.c.row)
        .subquery()
    )
    first = audits.alias()
    columns = (flags.c.audit, audits.c.audit_id, flags.c.row, flags.c.record, flags.c.group)
    query = (
        select(*columns, audits.c.summary, first.c.audit_id.label("first_audit_id"))
        .join(spans, (spans.c.row == flags.c.row) & (spans.c.last == flags.c.audit))
        .join(audits, audits.c.audit == flags.c.audit)
        .join(first, first.c.audit == spans.c.first)
        .join(rows, rows.c.row == flags.c.row)
        .where(IS_UNDECIDED, flags.c.row.not_in(reviewed))
        .order_by(*order_by_strength())
        .limit(most)
    )
    with ledger.read() as connection:
        return [_to_candidate(row) for row in connection.execute(query)]


def _to_candidate(row: Row[Any]) -> ReviewCandidate:
    return ReviewCandidate(
        audit=row.audit,
        audit_id=row.audit_id,
        first_audit_id=row.first_audit_id,
        row=row.row,
        record=json.loads(row.record),
        run_id=_extract_run_id(row.summary),
        group=row.group,
    )


def _extract_run_id(summary: str | None) -> str | None:
    run_id: str | None = json.loads(summary or "{}").get("mlflow_run_id")
    return run_id


@retried
def add_review(ledger: Ledger, candidate: ReviewCandidate) -> None:
    """A row is under review now."""
    known = select(reviews.c.trace).where(reviews.c.trace == candidate.trace)
    values = {"trace": candidate.trace, "audit": candidate.audit, "row": candidate.row}
    with ledger.write() as connection:
        # A crash between trace and ledger has the same trace logged, and added, once more.
        if connection.execute(known).first() is None:
            connection.execute(insert(reviews).values(values))


@retried
def list_review_traces(ledger: Ledger, name: str) -> dict[str, str | None]:
    """The traces of an audit's rows under review, with the id of the answer that was recorded last,
    if any."""
    query = select(reviews.c.trace, reviews.c.answer).where(
        exists().where(audits.c.audit == reviews.c.audit, audits.c.name == name)
    )
    with ledger.read() as connection:
        found = connection.execute(query).tuples()
        return {trace: split_entry(entry)[0] or None for trace, entry in found}


@retried
def list_review_changes(ledger: Ledger, name: str) -> list[ReviewChange]:
    """What MLflow is to be told of an audit's rows under review: those that nobody answered on
    there and somebody decided on elsewhere, and those of these that are open again.
    """
    of_row = decisions.alias()
    last = select(func.max(of_row.c.number)).where(of_row.c.row == reviews.c.row).scalar_subquery()
    query = (
        select(reviews.c.trace, decisions.c.number, decisions.c.author, WAS_TOLD.label("was_told"))
        .join(audits, audits.c.audit == reviews.c.audit)
        .join(rows, rows.c.row == reviews.c.row)
        .join(decisions, decisions.c.number == last)
        .where(
            audits.c.name == name,
            or_(and_(reviews.c.answer.is_(None), not_(IS_UNDECIDED)), and_(WAS_TOLD, IS_UNDECIDED)),
        )
        .order_by(decisions.c.number)
    )
    with ledger.read() as connection:
        return [
            ReviewChange(row.trace, None if row.was_told else row.number, row.author)
            for row in connection.execute(query)
        ]


@retried
def mark_review_told(ledger: Ledger, change: ReviewChange) -> None:
    """MLflow was told of a change. An answer that came meanwhile stays."""
    of_trace = reviews.c.trace == change.trace
    entry = None if change.decision is None else f"{ELSEWHERE}#{change.decision}"
    with ledger.write() as connection:
        connection.execute(update(reviews).where(of_trace, HAS_NO_ANSWER).values(answer=entry))


@retried
def delete_unanswered(ledger: Ledger, name: str) -> None:
    """Rows of an audit's name that nobody answered on are not under review any more: their queue is
    gone.
    """
    of_name = exists().where(audits.c.audit == reviews.c.audit, audits.c.name == name)
    with ledger.write() as connection:
        connection.execute(delete(reviews).where(of_name, HAS_NO_ANSWER))


@retried
def record_answer(
    ledger: Ledger, trace: str, answer: ReviewAnswer, two_people: TwoPeople = "none"
) -> bool:
    """Record an answer in the chain, as a decision, or as a proposal where `two_people` must agree:
    whether it counts.

    One that was recorded already does not, nor one that is older than what was decided elsewhere
    since.

    Raises InputError where the verdict is none.
    """
    of_trace = reviews.c.trace == trace
    with ledger.write() as connection:
        query = select(reviews.c.row, reviews.c.answer).where(of_trace)
        known = connection.execute(query).one()
        recorded_id, recorded_number = split_entry(known.answer)
        if recorded_id == answer.id:
            return False
        if recorded_id == ELSEWHERE:
            recorded_number = ""  # no answer's: the clocks are compared
        counts = _is_newer(connection, known.row, recorded_number, answer)
        entry = answer.id
        if counts:
            row = select(rows.c.row, rows.c.id, rows.c.status).where(rows.c.row == known.row)
            found = connection.execute(row).one()
            outcome = submit_on_rows(
                connection,
                [found],
                verdict=answer.verdict,
                note=answer.note,
                author=answer.author,
                two_people=two_people,
                signer=ledger.signer,
            )
            for made in outcome.decisions:
                entry = f"{answer.id}#{made.number}"
        # An answer that does not count is remembered, too: else it would be judged anew each time.
        connection.execute(update(reviews).where(of_trace).values(answer=entry))
    return counts


def split_entry(entry: str | None) -> tuple[str, str]:
    """The id of an answer and the number of the decision that it became ("" where it became none),
    as they are in the ledger: ID#NUMBER.
    """
    id, _, number = (entry or "").partition("#")
    return id, number


def _is_newer(connection: Connection, row: int, recorded_number: str, answer: ReviewAnswer) -> bool:
    """Whether an answer comes after the last decision on its row, `recorded_number` being that of
    the answer before it.
    """
    decided = (
        select(decisions.c.number, decisions.c.decided_at)
        .where(decisions.c.row == row)
        .order_by(desc(decisions.c.number))
        .limit(1)
    )
    last = connection.execute(decided).one_or_none()
    # Where the last decision is itself an answer given there, times are not compared: it was given
    # by the clock of another machine, and written later than it was given.
    if last is None or str(last.number) == recorded_number:
        return True
    # Whole seconds, as decisions have.
    answered_at = datetime.fromtimestamp(answer.answered_at_ms // 1000, UTC)
    return answered_at >= datetime.fromisoformat(last.decided_at)
