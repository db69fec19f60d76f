"""Alert targets that are out of reach: since when, why, and when they are tried again.

A target is noted here when a run of deliveries ended with an attempt that said something of the
target, and nothing of the message: nobody there, no answer in time, "answered 503". The first
message that it takes clears it. Times are as `ledger.now` writes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from poisonwatch.ledger.tables import outages


@dataclass(frozen=True, slots=True)
class Outage:
    """A target, by its id, that takes nothing `since` then; the last attempt failed for `reason`,
    which holds no address. `failures` counts the runs of deliveries in a row.
    """

    target: str
    since: str
    failures: int
    next_try_at: str
    reason: str


def list_outages(connection: Connection, name: str) -> dict[str, Outage]:
    """The targets of an audit's name that are out of reach, by their ids."""
    columns = [outages.c[field] for field in Outage.__dataclass_fields__]
    query = select(*columns).where(outages.c.name == name).order_by(outages.c.target)
    return {row.target: Outage(**row._mapping) for row in connection.execute(query)}


def note_outage(connection: Connection, name: str, outage: Outage) -> None:
    """A target of an audit's name took nothing; in place of what was noted of it before."""
    clear_outage(connection, name, outage.target)
    values = {field: getattr(outage, field) for field in Outage.__dataclass_fields__}
    connection.execute(insert(outages).values(name=name, **values))


def clear_outage(connection: Connection, name: str, target: str) -> None:
    """A target of an audit's name took something."""
    where = outages.c.name == name, outages.c.target == target
    connection.execute(delete(outages).where(*where))


def forget_outages(connection: Connection, name: str, targets: Sequence[str]) -> None:
    """Forget what was noted of targets that an audit file does not name any more."""
    where = outages.c.name == name, outages.c.target.not_in(targets)
    connection.execute(delete(outages).where(*where))
