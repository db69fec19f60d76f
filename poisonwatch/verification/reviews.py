"""Rows under review against what they follow from: the trace's id from audit and row, the recorded
answer from a decision on that row.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, func, select

from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.reviews import name_trace, split_entry
from poisonwatch.ledger.tables import audits, decisions, flags, reviews, rows


def check_reviews(connection: Connection) -> Iterator[Difference]:
    """The differences of all rows under review."""
    query = (
        select(reviews, rows.c.id, audits.c.name)
        .outerjoin(rows, rows.c.row == reviews.c.row)
        .outerjoin(audits, audits.c.audit == reviews.c.audit)
        .order_by(reviews.c.trace)
    )
    for review in connection.execute(query).all():
        yield from _check_review(connection, review)


def _check_review(connection: Connection, review: Row[Any]) -> Iterator[Difference]:
    name = f"review {review.trace[:16]}"
    if review.id is None or review.name is None:
        yield Difference(name, "a row and an audit of the ledger", "none")
        return
    expected = _name_trace(connection, review)
    if review.trace != expected:
        yield Difference(f"{name}: trace", expected[:16], review.trace[:16])
    _, number = split_entry(review.answer)
    if not number:
        return
    if not _is_on_row(connection, number, review.row):
        yield Difference(f"{name}: answer", "a decision on its row", f"decision {number[:20]}")


def _name_trace(connection: Connection, review: Row[Any]) -> str:
    first = (
        select(func.min(flags.c.audit))
        .join(audits, audits.c.audit == flags.c.audit)
        .where(flags.c.row == review.row, audits.c.name == review.name)
        .scalar_subquery()
    )
    audit_id = connection.execute(select(audits.c.audit_id).where(audits.c.audit == first))
    return name_trace(audit_id.scalar_one_or_none() or "no audit", bytes(review.id).hex())


def _is_on_row(connection: Connection, number: str, row: int) -> bool:
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        return False
    query = select(decisions.c.row).where(decisions.c.number == int(number))
    return connection.execute(query).scalar_one_or_none() == row
