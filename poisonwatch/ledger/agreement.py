"""How often people who look at the same rows say the same of them, month by month.

What somebody says of a row (a decision, or a proposal) is held against the last that somebody else
said of it before: one comparison. `unsure` takes back, and says nothing of a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.proposals import read_proposal
from poisonwatch.ledger.records import read_records
from poisonwatch.ledger.tables import audits, decisions, flags, rows
from poisonwatch.ledger.transactions import retried
from poisonwatch.ledger.two_people import PROPOSAL
from poisonwatch.text.names import fold_name

MONTH_CHARS = len("2026-11")


@dataclass(frozen=True, slots=True)
class Agreement:
    """In a month, how many rows a second person said the `same` of, of all `compared`."""

    month: str
    same: int
    compared: int

    @property
    def share(self) -> float:
        """From 0 to 1; 0 of nothing."""
        return self.same / self.compared if self.compared else 0.0


class _Saying(NamedTuple):
    """What a person said of a row, as sayings are put in order."""

    at: str
    person: str
    verdict: str
    answer: str | None


def add_up(months: Iterable[Agreement]) -> Agreement:
    """All of these months as one."""
    found = list(months)
    same, compared = sum(each.same for each in found), sum(each.compared for each in found)
    return Agreement("", same, compared)


@retried
def list_agreement(ledger: Ledger, name: str | None = None) -> list[Agreement]:
    """The months in which two people spoke of the same rows that audits of a name (None: of any)
    flagged, oldest first.
    """
    with ledger.read() as connection:
        return read_agreement(connection, name)


def read_agreement(connection: Connection, name: str | None = None) -> list[Agreement]:
    """`list_agreement` within a transaction."""
    said = _read_proposed(connection)
    for row, saying in _read_decided(connection, said):
        said.setdefault(row, []).append(saying)
    ours = None if name is None else _find_flagged(connection, name, said)
    same: dict[str, int] = {}
    compared: dict[str, int] = {}
    for row, sayings in said.items():
        if ours is not None and row not in ours:
            continue
        for month, is_same in _compare(sorted(sayings, key=lambda each: each.at)):
            compared[month] = compared.get(month, 0) + 1
            same[month] = same.get(month, 0) + is_same
    return [Agreement(month, same[month], compared[month]) for month in sorted(compared)]


def _compare(sayings: Iterable[_Saying]) -> Iterator[tuple[str, bool]]:
    """The month of each comparison, and whether both said the same."""
    last: dict[str, _Saying] = {}  # by person, in the order in which they spoke
    for saying in sayings:
        if saying.verdict == "unsure":
            last.pop(saying.person, None)
            continue
        again = last.pop(saying.person, None)
        others = list(last.values())
        # Who says the same once more, as a proposer whose word has become a decision, says nothing
        # new.
        is_news = again is None or again[2:] != saying[2:]
        if others and is_news:
            yield saying.at[:MONTH_CHARS], others[-1][2:] == saying[2:]
        last[saying.person] = saying


def _read_proposed(connection: Connection) -> dict[int, list[_Saying]]:
    by_id: dict[str, list[_Saying]] = {}
    for record in read_records(connection, PROPOSAL):
        made = read_proposal(record)
        saying = _Saying(made.proposed_at, fold_name(made.author), made.verdict, made.answer)
        for id in made.rows:
            by_id.setdefault(id, []).append(saying)
    found: dict[int, list[_Saying]] = {}
    for some in batched(by_id, VALUES_PER_STATEMENT):
        query = select(rows.c.row, rows.c.id).where(
            rows.c.id.in_([bytes.fromhex(id) for id in some])
        )
        for row, id in connection.execute(query).tuples():
            found[row] = by_id[bytes(id).hex()]
    return found


def _read_decided(connection: Connection, proposed: Iterable[int]) -> Iterator[tuple[int, _Saying]]:
    """Decisions on rows that were proposed on, or that several people decided on."""
    columns = decisions.c.row, decisions.c.decided_at, decisions.c.author
    query = select(*columns, decisions.c.verdict, decisions.c.answer)
    query = query.order_by(decisions.c.number)
    several = (
        select(decisions.c.row)
        .group_by(decisions.c.row)
        .having(func.count(decisions.c.author.distinct()) > 1)
    )
    wanted = set(connection.execute(several).scalars()) | set(proposed)
    for some in batched(sorted(wanted), VALUES_PER_STATEMENT):
        for made in connection.execute(query.where(decisions.c.row.in_(some))):
            person = fold_name(made.author)
            if person:
                yield made.row, _Saying(made.decided_at, person, made.verdict, made.answer)


def _find_flagged(connection: Connection, name: str, numbers: Iterable[int]) -> set[int]:
    """Those of these rows that audits of a name flagged."""
    found: set[int] = set()
    query = select(flags.c.row).join(audits, audits.c.audit == flags.c.audit)
    for some in batched(sorted(numbers), VALUES_PER_STATEMENT):
        here = query.where(audits.c.name == name, flags.c.row.in_(some))
        found.update(connection.execute(here).scalars())
    return found
