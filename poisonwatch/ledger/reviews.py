"""Flagged rows that people look at elsewhere: what the ledger knows of them.

A row under review has a trace in MLflow. It is entered when the trace stands in a queue; an answer
is taken into the chain of decisions in the same transaction that remembers it, with the number of
the decision that it became, so that none is taken twice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, desc, exists, func, insert, select, update

from poisonwatch.ledger.decisions import append_decision
from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, decisions, flags, reviews, rows


@dataclass(frozen=True, slots=True)
class ReviewCandidate:
    """A flagged row that nobody has decided on: the last audit that flagged it, its number in the
    ledger, its line of flags.jsonl.

    `first_audit_id` is the first audit of that name that flagged it.
    """

    audit: int
    audit_id: str
    first_audit_id: str
    row: int
    record: Mapping[str, Any]
    run_id: str | None

    @property
    def trace(self) -> str:
        """The id of its trace: it follows from audit and row, so that a trace that is logged again
        is the same, whatever came between.
        """
        name = f"{self.first_audit_id}/{self.record['example_id']}"
        return f"tr-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class ReviewAnswer:
    """What a person said of a row: `id` tells it from every other answer, `said_at` is in
    milliseconds since 1970.
    """

    id: str
    verdict: str
    note: str
    author: str
    said_at: int


def list_review_candidates(ledger: Ledger, name: str, most: int) -> list[ReviewCandidate]:
    """The flagged rows of an audit's name that are undecided and not under review yet, each once,
    strongest first; at most so many.
    """
    reviewed = (
        select(reviews.c.row)
        .join(audits, audits.c.audit == reviews.c.audit)
        .where(audits.c.name == name)
    )
    ends = select(
        flags.c.row, func.min(flags.c.audit).label("first"), func.max(flags.c.audit).label("last")
    )
    spans = (
        ends.join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.name == name)
        .group_by(flags.c.row)
        .subquery()
    )
    first = audits.alias()
    query = (
        select(
            flags.c.audit,
            audits.c.audit_id,
            first.c.audit_id.label("first"),
            flags.c.row,
            flags.c.record,
            audits.c.summary,
        )
        .join(spans, (spans.c.row == flags.c.row) & (spans.c.last == flags.c.audit))
        .join(audits, audits.c.audit == flags.c.audit)
        .join(first, first.c.audit == spans.c.first)
        .join(rows, rows.c.row == flags.c.row)
        .where(IS_UNDECIDED, flags.c.row.not_in(reviewed))
        .order_by(desc(flags.c.score), flags.c.row)
        .limit(most)
    )
    with ledger.read() as connection:
        return [
            ReviewCandidate(
                found.audit,
                found.audit_id,
                found.first,
                found.row,
                json.loads(found.record),
                _extract_run_id(found.summary),
            )
            for found in connection.execute(query)
        ]


def _extract_run_id(summary: str | None) -> str | None:
    run_id: str | None = json.loads(summary or "{}").get("mlflow_run_id")
    return run_id


def add_review(ledger: Ledger, entered: ReviewCandidate) -> None:
    """A row is under review now."""
    with ledger.write() as connection:
        if (
            connection.execute(
                select(reviews.c.trace).where(reviews.c.trace == entered.trace)
            ).first()
            is None
        ):
            connection.execute(
                insert(reviews).values(trace=entered.trace, audit=entered.audit, row=entered.row)
            )


def list_review_traces(ledger: Ledger, name: str) -> dict[str, str | None]:
    """The traces of an audit's rows under review, with the answer that was taken last."""
    query = select(reviews.c.trace, reviews.c.answer).where(
        exists().where(audits.c.audit == reviews.c.audit, audits.c.name == name)
    )
    with ledger.read() as connection:
        return {
            trace: answer and answer.partition("#")[0]
            for trace, answer in connection.execute(query).tuples()
        }


def delete_unanswered(ledger: Ledger, name: str) -> None:
    """Rows of an audit's name that nobody answered on are not under review any more: their queue is
    gone.
    """
    of_name = exists().where(audits.c.audit == reviews.c.audit, audits.c.name == name)
    with ledger.write() as connection:
        connection.execute(delete(reviews).where(of_name, reviews.c.answer.is_(None)))


def record_answer(ledger: Ledger, trace: str, answer: ReviewAnswer) -> bool:
    """Take an answer into the chain of decisions: whether it counts.

    One that was taken already does not, nor one that is older than what was decided elsewhere
    since. Where the last decision is itself an answer given here, times are not compared: it was
    said by the clock of another machine, and written later than it was said.

    Raises InputError where the verdict is none.
    """
    with ledger.write() as connection:
        known = connection.execute(
            select(reviews.c.row, reviews.c.answer).where(reviews.c.trace == trace)
        ).one()
        taken, _, became = (known.answer or "").partition("#")
        if taken == answer.id:
            return False
        newest = select(decisions.c.number, decisions.c.decided_at).where(
            decisions.c.row == known.row
        )
        last = connection.execute(newest.order_by(desc(decisions.c.number)).limit(1)).one_or_none()
        said_at = datetime.fromtimestamp(answer.said_at // 1000, UTC)
        counts = (
            last is None
            or str(last.number) == became
            or said_at >= datetime.fromisoformat(last.decided_at)
        )
        entry = answer.id
        if counts:
            found = connection.execute(
                select(rows.c.row, rows.c.id, rows.c.status).where(rows.c.row == known.row)
            ).one()
            entry = f"{answer.id}#{append_decision(connection, found, answer.verdict, answer.note, answer.author).number}"
        connection.execute(update(reviews).where(reviews.c.trace == trace).values(answer=entry))
    return counts
