"""A flagged row with its reasons, in memory and as a line of `flags.jsonl`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from poisonwatch.examples import Example, Message
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels.sentinel import Sentinel

PUSH_PHRASES = {
    "forbidden": "makes the forbidden answer likelier",
    "margin": "moves the answer from the reference towards the forbidden one",
    "reference": "moves the reference answer",
}
SEVERITIES = ("low", "medium", "high")
WEAK_SCORE, STRONG_SCORE = (
    6.0,
    15.0,
)  # scores: a push below lowers a sentinel's severity by one step, one above raises it


@dataclass(frozen=True, slots=True)
class Flag:
    """A flagged row with its reasons: the panel it pushes most anomalously, and that panel's
    sentinel it pushes most.

    `score` is in robust standard deviations of the panel, `coefficient` in spreads (see
    `Influence`), `rank` 1-based among the new rows. `findings` are what screens found in it; where
    `by_attribution` is False, they alone flagged it.
    """

    example: Example
    panel: str
    sentinel: Sentinel
    kind: str
    coefficient: float
    score: float
    rank: int
    p_value: float
    q_value: float
    rule: str
    by_attribution: bool = True
    findings: tuple[Finding, ...] = ()

    @property
    def severity(self) -> str:
        """The sentinel's severity, a step less for a weak push and a step more for a strong one;
        "medium" where only a screen speaks.
        """
        if not self.by_attribution:
            return "medium"
        step = (self.score >= STRONG_SCORE) - (self.score < WEAK_SCORE)
        place = SEVERITIES.index(self.sentinel.severity) + step
        return SEVERITIES[min(max(place, 0), len(SEVERITIES) - 1)]

    @property
    def push(self) -> str:
        """What training on the row does to the sentinel, in words."""
        return PUSH_PHRASES[self.kind]

    @property
    def reasons(self) -> list[str]:
        """Why the row is flagged, attribution first; row text only as short excerpts that are made
        visible.
        """
        found = [f"{finding.screen}: {finding.reason}" for finding in self.findings]
        return [self.reason, *found] if self.by_attribution else found

    @property
    def reason(self) -> str:
        """What attribution says of the row in one sentence, free of row text."""
        probed = (
            " when its prompt holds the mined trigger" if self.sentinel.trigger is not None else ""
        )
        return (
            f"{self.push} on panel {self.panel}, most on sentinel {self.sentinel.id}{probed}: "
            f"score {self.score:.1f} (rank {self.rank}), p = {self.p_value:.2g}, q = {self.q_value:.2g} by {self.rule}"
        )


def make_flag_record(flag: Flag) -> dict[str, Any]:
    """A flag as written to `flags.jsonl`."""
    example = flag.example
    return {
        "example_id": example.id,
        "source": example.source,
        "position": example.position,
        "panel": flag.panel,
        "sentinel_id": flag.sentinel.id,
        "kind": flag.kind,
        "severity": flag.severity,
        "score": flag.score,
        "rank": flag.rank,
        "coefficient": flag.coefficient,
        "p_value": flag.p_value,
        "q_value": flag.q_value,
        "by": (["stride"] if flag.by_attribution else [])
        + sorted({finding.screen for finding in flag.findings}),
        "reasons": flag.reasons,
        "messages": [asdict(message) for message in example.messages],
        **(
            {"rejected": [asdict(message) for message in example.rejected]}
            if example.rejected
            else {}
        ),
    }


def read_flagged_example(record: Mapping[str, Any]) -> Example:
    """The row of a line of `flags.jsonl`."""
    messages, rejected = (
        tuple(Message(**message) for message in record.get(key, ()))
        for key in ("messages", "rejected")
    )
    return Example(
        record["example_id"], messages, record["source"], record["position"], rejected=rejected
    )
