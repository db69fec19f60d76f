"""Names for filters that people come back to. They are no evidence: anybody who decides may save
and remove them.
"""

import re
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.team_tables import saved_views
from poisonwatch.ledger.transactions import retried

LONGEST_NAME = 100  # characters
LONGEST_ADDRESS = 2000
MOST_VIEWS = 100
ADDRESS = re.compile(r"/(triage|rows)(\?[^#\s\\]*)?")


@dataclass(frozen=True, slots=True)
class SavedView:
    """A name for the `address` of a filter: a page, and its query."""

    name: str
    address: str
    author: str


@retried
def save_view(ledger: Ledger, name: str, address: str, author: str) -> None:
    """Save a filter under a name, in place of what had it. Raises InputError where the name or the
    address is none, or there are too many.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME:
        raise InputError(f"a view has a name of at most {LONGEST_NAME} characters")
    if len(address) > LONGEST_ADDRESS or not ADDRESS.fullmatch(address):
        raise InputError("only a list of rows, or of groups, can be saved as a view")
    values = {"name": name, "address": address, "author": author, "saved_at": now()}
    with ledger.write() as connection:
        connection.execute(delete(saved_views).where(saved_views.c.name == name))
        if len(connection.execute(select(saved_views.c.name)).all()) >= MOST_VIEWS:
            raise InputError(f"there are {MOST_VIEWS} views already: remove one first")
        connection.execute(insert(saved_views).values(values))


@retried
def remove_view(ledger: Ledger, name: str) -> None:
    """Remove a view; one that is not there is removed already."""
    with ledger.write() as connection:
        connection.execute(delete(saved_views).where(saved_views.c.name == name))


@retried
def list_views(ledger: Ledger) -> list[SavedView]:
    """All views, by name."""
    query = select(saved_views.c.name, saved_views.c.address, saved_views.c.author)
    with ledger.read() as connection:
        found = connection.execute(query.order_by(saved_views.c.name)).tuples()
        return [SavedView(*view) for view in found]
