"""What the audits of one name came to over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poisonwatch.ledger.history import PastAudit, past_audits
from poisonwatch.ledger.ledger import Ledger

LONGEST = 30  # audits
SEARCHED = 10 * LONGEST  # audits looked through for those that came to results


@dataclass(frozen=True, slots=True)
class Point:
    """One audit: when it was `created`, how many rows were `new` and `flagged`, and its stages' `seconds`.

    `largest` has each panel's largest score, in robust standard deviations; it is empty where no row was new.
    """

    audit_id: str
    created: str
    new: int
    flagged: int
    largest: Mapping[str, float]
    seconds: float

    @property
    def flag_rate(self) -> float | None:
        """The flagged share of the new rows; None without new rows."""
        return self.flagged / self.new if self.new else None

    @property
    def largest_score(self) -> float | None:
        """Over all panels; None without new rows."""
        return max(self.largest.values(), default=None)


def earlier(ledger: Ledger, name: str) -> list[PastAudit]:
    """The last audits of a name that came to results, newest first, as many as fit into a trend beside one more."""
    return [audit for audit in past_audits(ledger, name, SEARCHED) if audit.came_to_results][: LONGEST - 1]


def trend(past: Sequence[PastAudit], summary: Mapping[str, Any]) -> list[Point]:
    """The audits in `past` (newest first, in any state) that came to results, and the one of the summary: oldest first, at most LONGEST.

    An audit that is in `past` and is the summary's counts once, as the summary tells it.
    """
    done = [audit.summary for audit in past if audit.came_to_results and audit.summary.get("audit_id") != summary["audit_id"]]
    return [*(point(of) for of in reversed(done[: LONGEST - 1])), point(summary)]


def point(summary: Mapping[str, Any]) -> Point:
    """The audit of a summary."""
    return Point(
        audit_id=summary["audit_id"],
        created=summary["created"],
        new=summary["counts"]["new"],
        flagged=summary["counts"]["flagged"],
        largest={panel["name"]: panel["largest_score"] for panel in summary["panels"]},
        seconds=sum(stage["seconds"] for stage in summary["stages"]),
    )
