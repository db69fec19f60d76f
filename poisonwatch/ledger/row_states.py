"""What a row is, by what audits found and people decided: `rows.status` and `rows.decided` are kept
beside it, to be asked quickly, and must be the same.

    the last decision    poison -> poison; benign -> clean; flip, edit -> repaired;
                         unsure, or none -> what audits say
    the last audit       passed it -> clean or flagged; refused it -> rejected; none -> pending

A clean row that was released is kept as "released".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from poisonwatch.ledger.tables import decisions, rejections, results, rows

ROWS_PER_READ = 5000
FLIP, EDIT = "flip", "edit"
REPAIRS = (FLIP, EDIT)  # verdicts by which a release has the row changed (`repairs`)
REPAIRED = "repaired"  # what such a row is


@dataclass(frozen=True, slots=True)
class RowState:
    """A row with what is kept of it (`status`, `decided`), and what its records come to."""

    row: int
    id: str
    status: str
    decided: str | None
    derived_status: str
    derived_decided: str | None

    @property
    def is_right(self) -> bool:
        """Whether what is kept is what the records come to."""
        kept = "clean" if self.status == "released" else self.status
        return (kept, self.decided) == (self.derived_status, self.derived_decided)


def read_row_states(
    connection: Connection, numbers: Sequence[int] | None = None
) -> Iterator[RowState]:
    """The states of these rows, at most VALUES_PER_STATEMENT; None: of all."""
    query = _select_states()
    if numbers is not None:
        query = query.where(rows.c.row.in_(numbers))
    streamed = connection.execute(query.execution_options(yield_per=ROWS_PER_READ))
    for row, id, status, decided, verdict, passed, flagged, refused in streamed.tuples():
        derived = derive_state(verdict, passed=passed, flagged=flagged, refused=refused)
        yield RowState(row, bytes(id).hex(), status, decided, *derived)


def find_audited_status(connection: Connection, row: int) -> str:
    """What audits say of a row, whatever people decided."""
    found = connection.execute(_select_states().where(rows.c.row == row)).one()
    said = {"passed": found.passed, "flagged": found.flagged, "refused": found.refused}
    return derive_state(None, **said)[0]


def derive_state(
    verdict: str | None, *, passed: int | None, flagged: int | None, refused: int | None
) -> tuple[str, str | None]:
    """Status and settling verdict of a row by its last verdict, the number of the last audit that
    `passed` it and whether that `flagged` it, and of the last that `refused` it.
    """
    if verdict == "poison":
        return "poison", "poison"
    if verdict == "benign":
        return "clean", "benign"
    if verdict in REPAIRS:
        return REPAIRED, verdict
    # A row that an audit passed may be rejected by a later one, under another model.
    if refused is not None and refused > (passed or 0):
        return "rejected", None
    if passed is None:
        return "pending", None
    return ("flagged" if flagged else "clean"), None


def _select_states() -> Select[Any]:
    # For each row on its own, from an index: joined to the last of everything, all would be sorted.
    verdict = (
        select(decisions.c.verdict)
        .where(decisions.c.row == rows.c.row)
        .order_by(decisions.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    passed = select(func.max(results.c.audit)).where(results.c.row == rows.c.row).scalar_subquery()
    flagged = (
        select(results.c.flagged)
        .where(results.c.row == rows.c.row)
        .order_by(results.c.audit.desc())
        .limit(1)
        .scalar_subquery()
    )
    refused = (
        select(func.max(rejections.c.audit)).where(rejections.c.row == rows.c.row).scalar_subquery()
    )
    columns = rows.c.row, rows.c.id, rows.c.status, rows.c.decided
    return select(
        *columns,
        verdict.label("verdict"),
        passed.label("passed"),
        flagged.label("flagged"),
        refused.label("refused"),
    )
