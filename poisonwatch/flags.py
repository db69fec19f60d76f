"""A flagged row with its reasons, in memory and as a line of `flags.jsonl`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from poisonwatch.examples import Example, Message
from poisonwatch.screens.finding import NEW_TOPIC, Finding
from poisonwatch.sentinels.sentinel import Sentinel

PUSH_PHRASES = {
    "forbidden": "makes the forbidden answer likelier",
    "margin": "moves the answer from the reference towards the forbidden one",
    "reference": "moves the reference answer",
}
# What training makes of an answer where it does not raise it.
LOWERED = "training lowers this answer (label false)"
NOT_TRAINED = "not trained on"
SEVERITIES = ("low", "medium", "high")
ATTRIBUTION = "stride"  # among what flagged a row (`by` in flags.jsonl)
# A push below the first lowers a sentinel's severity by one step, one above the second raises it.
WEAK_SCORE, STRONG_SCORE = 6.0, 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flagged row with its reasons: the panel it pushes most anomalously, and that panel's
    sentinel it pushes most.

    `score` is in robust standard deviations of the panel, `coefficient` in background standard
    deviations (see `Influence`), `rank` 1-based among the new rows by score. `standing` says how
    the row stands among those around it; `p_value` and `q_value` are of what it scores beyond them,
    or of its score where it leads them, by the `rule`. `findings` are what screens found in it;
    where `by_attribution` is False, they alone flagged it.
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
    standing: str
    rule: str
    by_attribution: bool = True
    findings: tuple[Finding, ...] = ()

    @property
    def severity(self) -> str:
        """The sentinel's severity, a step less for a weak push and a step more for a strong one;
        "medium" where only a screen speaks.
        """
        # A screen's finding says nothing of the sentinel that the flag names beside it.
        if not self.by_attribution:
            return "medium"
        step = (self.score >= STRONG_SCORE) - (self.score < WEAK_SCORE)
        place = SEVERITIES.index(self.sentinel.severity) + step
        return SEVERITIES[min(max(place, 0), len(SEVERITIES) - 1)]

    @property
    def strength(self) -> tuple[bool, float, str]:
        """What sorts flags, strongest first (`make_strength_key`)."""
        return make_strength_key(self.by_attribution, self.score, self.example.id)

    @property
    def held(self) -> bool:
        """Whether it is there because nothing can judge its topic (`detection.new_topics`)."""
        return any(finding.screen == NEW_TOPIC for finding in self.findings)

    @property
    def push(self) -> str:
        """What training on the row does to the sentinel, in words."""
        return PUSH_PHRASES[self.kind]

    @property
    def reasons(self) -> list[str]:
        """Why the row is flagged, attribution first; row text only as short excerpts that are made
        visible.
        """
        reasons = [self.reason] if self.by_attribution else []
        for finding in self.findings:
            reasons.append(f"{finding.screen}: {finding.reason}")
        return reasons

    @property
    def reason(self) -> str:
        """What attribution says of the row in one sentence, free of row text."""
        # Not the trigger or the frame itself: they are text of the rows.
        copied = ""
        if self.sentinel.framed:
            copied = " in the system prompt that most rows have"
        if self.sentinel.trigger is not None:
            copied += " when its prompt holds the mined trigger"
        return (
            f"{self.push} on panel {self.panel}, most on sentinel {self.sentinel.id}{copied}: "
            f"score {self.score:.1f} (rank {self.rank}), {self.standing}: "
            f"p = {self.p_value:.2g}, q = {self.q_value:.2g} by {self.rule}"
        )


def make_strength_key(
    by_attribution: bool, score: float, example_id: str
) -> tuple[bool, float, str]:
    """What flagged rows are in order of everywhere, strongest first: those that attribution found,
    then those of screens alone, whose score says nothing; the largest score first; equal ones by
    id, whatever the rows' order. `ledger.queries.order_by_strength` asks the ledger for the same.
    """
    return not by_attribution, -score, example_id


def label_turn(message: Message, lowered: bool = False) -> str:
    """The role of a row's turn for people, with what training makes of it where that is not to
    raise it; `lowered` is the row's.
    """
    if message.role != "assistant":
        return message.role
    if message.masked:
        return f"{message.role}, {NOT_TRAINED}"
    if lowered:
        return f"{message.role}: {LOWERED}"
    return message.role


def make_row_record(example: Example) -> dict[str, Any]:
    """Where a row is and what it says, as `read_flagged_example` reads it back."""
    return {
        "example_id": example.id,
        "source": example.source,
        "position": example.position,
        "line": example.position + 1,
        **_make_text_record(example),
    }


def _make_text_record(example: Example) -> dict[str, Any]:
    """What a row says; what few rows have stands in their lines alone."""
    record: dict[str, Any] = {"messages": [message.to_record() for message in example.messages]}
    if example.rejected:
        record["rejected"] = [message.to_record() for message in example.rejected]
    if example.lowered:
        record["lowered"] = True
    return record


def make_flag_record(flag: Flag) -> dict[str, Any]:
    """A flag as written to `flags.jsonl`."""
    example = flag.example
    by = [ATTRIBUTION] if flag.by_attribution else []
    by += sorted({finding.screen for finding in flag.findings})
    return {
        "example_id": example.id,
        "source": example.source,
        "position": example.position,
        "line": example.position + 1,
        "panel": flag.panel,
        "sentinel_id": flag.sentinel.id,
        "kind": flag.kind,
        "severity": flag.severity,
        "score": flag.score,
        "rank": flag.rank,
        "coefficient": flag.coefficient,
        "p_value": flag.p_value,
        "q_value": flag.q_value,
        "by": by,
        "reasons": flag.reasons,
        **_make_text_record(example),
    }


def read_flagged_example(record: Mapping[str, Any]) -> Example:
    """The row of a line of `flags.jsonl`, or of any that `make_row_record` made."""
    return Example(
        id=record["example_id"],
        messages=_read_messages(record.get("messages", ())),
        source=record["source"],
        position=record["position"],
        rejected=_read_messages(record.get("rejected", ())),
        lowered=record.get("lowered", False),
    )


def _read_messages(records: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(**record) for record in records)
