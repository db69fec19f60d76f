"""What screens find."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# Where a screen's name stands, for rows that are flagged because nothing can judge their topic
# (`detection.new_topics`).
NEW_TOPIC = "new-topic"


@dataclass(frozen=True, slots=True)
class Finding:
    """A row (its place in `examples`) that a screen points at; rows of one `group` were found
    together.

    `group` may hold text of the rows as it stands: treat it as hostile. `reason` is fit to be
    shown.
    """

    row: int
    screen: str
    group: str
    reason: str


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """By row, screen and group."""
    return sorted(findings, key=lambda f: (f.row, f.screen, f.group))


def renumber_findings(findings: Iterable[Finding], left_out: Sequence[int]) -> list[Finding]:
    """The findings where the rows `left_out` (ascending) are gone, and the others moved up."""
    renumbered = []
    for finding in findings:
        before = bisect_left(left_out, finding.row)
        if before == len(left_out) or left_out[before] != finding.row:
            renumbered.append(replace(finding, row=finding.row - before))
    return renumbered
