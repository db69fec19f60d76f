"""Two audits side by side: which rows only one of them flagged, which both did and otherwise, and
what became of each panel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from poisonwatch.flags import make_strength_key
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import is_attributed
from poisonwatch.ledger.tables import audits, flags, results, rows
from poisonwatch.ledger.transactions import retried

Change = Literal["new", "gone", "changed", "same"]
CHANGES: tuple[Change, ...] = ("new", "gone", "changed", "same")


@dataclass(frozen=True, slots=True)
class Flagged:
    """What an audit said of a row that it flagged."""

    panel: str
    severity: str
    score: float
    by_attribution: bool


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A row that one of two audits flagged, or both: what each said of it. `looked_at` tells
    whether the other one looked at the row at all.
    """

    example_id: str
    change: Change
    before: Flagged | None
    after: Flagged | None
    looked_at: bool


@dataclass(frozen=True, slots=True)
class ComparedPanel:
    """The flags of a panel in both audits: how many, and the largest score (0 without any)."""

    panel: str
    flags_before: int
    flags_after: int
    largest_before: float
    largest_after: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two audits, side by side: rows with the strongest first, panels by name."""

    rows: tuple[ComparedRow, ...]
    panels: tuple[ComparedPanel, ...]

    def count(self, change: Change) -> int:
        """How many rows changed so."""
        return sum(row.change == change for row in self.rows)


@retried
def compare_audits(ledger: Ledger, before: str, after: str) -> Comparison:
    """What changed from one audit to another, by their ids. A row that both flagged has changed
    where its panel or its severity has.
    """
    said_of_flag = flags.c.panel, flags.c.severity, flags.c.score, is_attributed()
    with ledger.read() as connection:
        said = []
        looked = []
        for audit_id in (before, after):
            audit = select(audits.c.audit).where(audits.c.audit_id == audit_id).scalar_subquery()
            query = (
                select(rows.c.id, *said_of_flag)
                .join(flags, flags.c.row == rows.c.row)
                .where(flags.c.audit == audit)
            )
            found = connection.execute(query).tuples()
            said.append({bytes(id).hex(): Flagged(*rest) for id, *rest in found})
            query_ids = (
                select(rows.c.id)
                .join(results, results.c.row == rows.c.row)
                .where(results.c.audit == audit)
            )
            looked.append({bytes(id).hex() for id in connection.execute(query_ids).scalars()})
    compared = []
    for id in said[0].keys() | said[1].keys():
        old, new = said[0].get(id), said[1].get(id)
        other = looked[0] if old is None else looked[1]
        compared.append(ComparedRow(id, _name_change(old, new), old, new, id in other))
    compared.sort(key=lambda row: (CHANGES.index(row.change), _find_strength(row)))
    return Comparison(tuple(compared), _compare_panels(*said))


def _name_change(before: Flagged | None, after: Flagged | None) -> Change:
    if before is None:
        return "new"
    if after is None:
        return "gone"
    is_same = (before.panel, before.severity) == (after.panel, after.severity)
    return "same" if is_same else "changed"


def _find_strength(row: ComparedRow) -> tuple[bool, float, str]:
    return min(
        make_strength_key(flagged.by_attribution, flagged.score, row.example_id)
        for flagged in (row.before, row.after)
        if flagged is not None
    )


def _compare_panels(
    before: Mapping[str, Flagged], after: Mapping[str, Flagged]
) -> tuple[ComparedPanel, ...]:
    names = {flagged.panel for said in (before, after) for flagged in said.values()}
    panels = []
    for name in sorted(names):
        old, new = (
            [flagged.score for flagged in said.values() if flagged.panel == name]
            for said in (before, after)
        )
        panel = ComparedPanel(
            panel=name,
            flags_before=len(old),
            flags_after=len(new),
            largest_before=max(old, default=0.0),
            largest_after=max(new, default=0.0),
        )
        panels.append(panel)
    return tuple(panels)
