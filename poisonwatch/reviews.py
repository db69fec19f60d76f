"""Flagged rows that people look at elsewhere: what the ledger knows of them.

A row under review has a trace in MLflow. It is entered when the trace stands in a queue; an answer is taken into the chain of decisions in
the same transaction that remembers it, so that none is taken twice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import desc, exists, func, insert, select, update

from poisonwatch.decisions import append
from poisonwatch.ledger import Ledger
from poisonwatch.ledger_tables import audits, decisions, flags, reviews, rows


@dataclass(frozen=True, slots=True)
class Waiting:
    """A flagged row that nobody has decided on: its audit, its numbers in the ledger, and its line of flags.jsonl."""

    audit: int
    audit_id: str
    row: int
    record: Mapping[str, Any]
    run_id: str | None

    @property
    def trace(self) -> str:
        """The id of its trace: it follows from audit and row, so that a trace that is logged again is the same."""
        name = f"{self.audit_id}/{self.record['example_id']}"
        return f"tr-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said of a row: `id` tells it from every other answer, `said_at` is in milliseconds since 1970."""

    id: str
    verdict: str
    note: str
    author: str
    said_at: int


def waiting(ledger: Ledger, name: str, most: int) -> list[Waiting]:
    """The flagged rows of an audit's name that are undecided and not under review yet, each once, strongest first; at most so many."""
    reviewed = select(reviews.c.row).join(audits, audits.c.audit == reviews.c.audit).where(audits.c.name == name)
    last = select(flags.c.row, func.max(flags.c.audit).label("audit")).join(audits, audits.c.audit == flags.c.audit)
    last = last.where(audits.c.name == name).group_by(flags.c.row)
    newest = last.subquery()
    query = (
        select(flags.c.audit, audits.c.audit_id, flags.c.row, flags.c.record, audits.c.summary)
        .join(newest, (newest.c.row == flags.c.row) & (newest.c.audit == flags.c.audit))
        .join(audits, audits.c.audit == flags.c.audit)
        .join(rows, rows.c.row == flags.c.row)
        .where(rows.c.decided.is_(None), rows.c.status == "flagged", flags.c.row.not_in(reviewed))
        .order_by(desc(flags.c.score), flags.c.row)
        .limit(most)
    )
    with ledger.read() as connection:
        return [
            Waiting(
                found.audit, found.audit_id, found.row, json.loads(found.record), json.loads(found.summary or "{}").get("mlflow_run_id")
            )
            for found in connection.execute(query)
        ]


def enter(ledger: Ledger, entered: Waiting) -> None:
    """A row is under review now."""
    with ledger.write() as connection:
        if connection.execute(select(reviews.c.trace).where(reviews.c.trace == entered.trace)).first() is None:
            connection.execute(insert(reviews).values(trace=entered.trace, audit=entered.audit, row=entered.row))


def under_review(ledger: Ledger, name: str) -> dict[str, str | None]:
    """The traces of an audit's rows under review, with the answer that was taken last."""
    query = select(reviews.c.trace, reviews.c.answer).where(exists().where(audits.c.audit == reviews.c.audit, audits.c.name == name))
    with ledger.read() as connection:
        return dict(connection.execute(query).tuples().all())


def take(ledger: Ledger, trace: str, answer: Answer) -> bool:
    """Take an answer into the chain of decisions: whether it counts. One that is older than the last decision on its row does not.

    Raises InputError where the verdict is none.
    """
    with ledger.write() as connection:
        row = connection.execute(select(reviews.c.row).where(reviews.c.trace == trace)).scalar_one()
        last = connection.execute(
            select(decisions.c.decided_at).where(decisions.c.row == row).order_by(desc(decisions.c.number)).limit(1)
        ).scalar_one_or_none()
        said_at = datetime.fromtimestamp(answer.said_at // 1000, UTC)
        counts = last is None or said_at >= datetime.fromisoformat(last)
        if counts:
            found = connection.execute(select(rows.c.row, rows.c.id, rows.c.status).where(rows.c.row == row)).one()
            append(connection, found, answer.verdict, answer.note, answer.author)
        connection.execute(update(reviews).where(reviews.c.trace == trace).values(answer=answer.id))
    return counts
