"""How far people are with a flagged row, as conditions on `rows`.

open        in quarantine, and nobody has decided on it
in review   open, and somebody took it, or has said what it is and waits for a second person
reopened    open, and was decided on before
decided     poison or benign
"""

from typing import Literal

from sqlalchemy import ColumnElement, exists, or_, select

from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.tables import decisions, rows
from poisonwatch.ledger.team_tables import assignments, proposals
from poisonwatch.text.names import fold_name

QueueState = Literal["open", "in review", "reopened", "decided", "all"]
NOBODY = "(nobody)"  # stands for no assignee

# Conditions on a row that waits for a decision.
IS_BEGUN: ColumnElement[bool] = or_(
    exists().where(assignments.c.row == rows.c.row, assignments.c.taken == 1),
    exists().where(proposals.c.row == rows.c.row),
)
WAS_DECIDED: ColumnElement[bool] = exists().where(
    decisions.c.row == rows.c.row, decisions.c.verdict != "unsure"
)


def match_state(state: QueueState) -> ColumnElement[bool]:
    """The rows in a state of the queue."""
    is_decided = rows.c.decided.is_not(None)
    conditions: dict[QueueState, ColumnElement[bool]] = {
        "open": IS_UNDECIDED,
        "in review": IS_UNDECIDED & IS_BEGUN & ~WAS_DECIDED,
        "reopened": IS_UNDECIDED & WAS_DECIDED,
        "decided": is_decided,
        # A row that is neither was cleared by a later audit.
        "all": or_(IS_UNDECIDED, is_decided),
    }
    return conditions[state]


def match_assignee(assignee: str) -> ColumnElement[bool]:
    """The rows that somebody has, or nobody (NOBODY)."""
    if assignee == NOBODY:
        return ~exists().where(assignments.c.row == rows.c.row)
    mine = assignments.c.person == fold_name(assignee)
    return exists().where(assignments.c.row == rows.c.row, mine)


def match_left_to(person: str) -> ColumnElement[bool]:
    """The rows that a person can go on with: those that nobody else has, and of which they have not
    said what they are.
    """
    name = fold_name(person)
    of_others = assignments.c.row == rows.c.row, assignments.c.person != name
    said = select(proposals.c.row).where(proposals.c.row == rows.c.row, proposals.c.person == name)
    return ~exists().where(*of_others) & ~said.exists()
