"""What validation asks of rows beyond single texts, and what it found: a `Check` for every
expectation.

An expectation on single rows keeps out the rows that fail it. One on the whole batch (its mix of
sources, its languages, a mean) cannot say which rows are wrong: it warns, or stops the audit.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from poisonwatch.examples import TOOLS_ROLE, Example, Rejection

Severity = Literal["reject", "warn", "stop", "note"]
"""What follows when an expectation fails: its rows are kept out, people are told, the audit stops,
or it is only counted.
"""

# English text under vocabularies of 49,000 to 150,000; other scripts may take twice as many tokens.
BYTES_PER_TOKEN = 4
FIRST_ROLES = ("system", "user", "assistant")
NEXT_ROLES = {
    "system": ("system", "user", "assistant"),
    "user": ("assistant",),
    "assistant": ("user", "assistant", "tool"),
    "tool": ("user", "assistant", "tool"),
}
"""Roles, and what may follow each: what most trainers take. A system text and a developer's, an
answer and then a call, and a greeting before the first question are common.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation, and what came of it; all plain values.

    `reason` says what it means to fail. `failing` rows failed, a `share` of those looked at; both
    are None where an expectation is on the whole batch, and `observed` says in words what was
    measured. Of severity "note" nothing fails: it counts.
    """

    expectation: str
    column: str | None
    severity: Severity
    passed: bool
    failing: int | None
    share: float | None
    reason: str
    observed: str | None

    @property
    def failure_message(self) -> str:
        """What it means to fail, and what was observed."""
        if not self.observed:
            return self.reason
        # Where rows fail, what was observed counts them, and says so itself.
        if self.failing is not None:
            return f"{self.reason} ({self.observed})"
        return f"{self.reason} (observed: {self.observed})"


@dataclass(frozen=True, slots=True)
class Validation:
    """A validated batch: every row of it is among the `examples` or the `rejected`, in order, or is
    one of the `copies`. The examples may lie in a file (`poisonwatch.packed_examples`).

    A copy has the content of an earlier row of the batch, or its bytes where it cannot be read; the
    bytes of `identical` ones are an earlier row's, too. A copy is no failure.
    """

    examples: Sequence[Example]
    rejected: list[Rejection]
    checks: list[Check]
    copies: int = 0
    identical: int = 0

    @classmethod
    def empty(cls) -> "Validation":
        """Of no rows, asked nothing."""
        return cls([], [], [])

    def reject_unmeasured(
        self, examples: Sequence[Example], rejected: Sequence[Rejection]
    ) -> "Validation":
        """The same after some of its examples could not be measured: those that are left, and the
        others, last among the `rejected`.
        """
        if not rejected:
            return self
        check = Check(
            expectation=rejected[0].expectation,
            column=None,
            severity="reject",
            passed=False,
            failing=len(rejected),
            share=len(rejected) / len(self.examples),
            reason="the model cannot measure the row",
            observed=None,
        )
        rows = [*self.rejected, *rejected]
        return replace(self, examples=examples, rejected=rows, checks=[*self.checks, check])

    @property
    def rows(self) -> int:
        return len(self.examples) + len(self.rejected) + self.copies

    @property
    def warnings(self) -> list[str]:
        """A sentence for each expectation that failed without keeping rows out."""
        failed = [check for check in self.checks if not check.passed]
        return [check.failure_message for check in failed if check.severity == "warn"]

    def to_record(self) -> dict[str, Any]:
        """As written to `validation.json`."""
        return {
            "rows": self.rows,
            "passed": len(self.examples),
            "rejected": len(self.rejected),
            "copies": self.copies,
            "identical": self.identical,
            "warnings": self.warnings,
            "checks": [asdict(check) for check in self.checks],
        }


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: one for every four bytes of UTF-8.

    Validation runs before a model is loaded. For English this is right within a third; code and
    other languages may have twice as many.
    """
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Facts:
    """What validation may be told besides the rows.

    `known` are ids of examples that were seen before, or a function that picks them from a set of
    ids; `earlier` are the rows by source of past audits; `accepted` rows of the source passed
    before, beside which a few bad ones are few; beyond `max_tokens` the encoder clips a
    conversation; `count_tokens` is the tokenizer's, where there is one; of unread fields those in
    `ignore` are not warned of.
    """

    known: Set[str] | Callable[[Set[str]], Set[str]] = frozenset()
    earlier: Mapping[str, int] = field(default_factory=dict)
    accepted: int = 0
    max_tokens: int | None = None
    count_tokens: Callable[[str], int] = estimate_tokens
    ignore: Collection[str] = ()

    def select_known(self, ids: Set[str]) -> Set[str]:
        """The ids that were seen before."""
        # A ledger of millions of rows is asked, not read.
        if callable(self.known):
            return self.known(ids)
        return self.known & ids


def find_role_problem(roles: Sequence[str]) -> str | None:
    """What is wrong with the order of a conversation's roles; None where nothing is.

    Definitions of tools, then system, only at the beginning; tool after the assistant; no two turns
    of the user's in a row; the assistant last.
    """
    turns = roles
    # They are no turn of anybody's: people count those after them.
    if turns and turns[0] == TOOLS_ROLE:
        turns = turns[1:]
    if not turns:
        return "there are no turns"
    if turns[0] not in FIRST_ROLES:
        allowed = ", ".join(FIRST_ROLES[:-1])
        return f"turn 1 is {turns[0]}: a conversation begins with {allowed} or {FIRST_ROLES[-1]}"
    # People count turns from 1, and the first has none before it.
    for turn, (before, role) in enumerate(pairwise(turns), start=2):
        if role in NEXT_ROLES[before]:
            continue
        if role in ("system", TOOLS_ROLE):
            return f"turn {turn} is {role}, which may only come first"
        allowed = " or ".join(NEXT_ROLES[before])
        return f"turn {turn} is {role} after {before}: after {before} comes {allowed}"
    if turns[-1] != "assistant":
        return f"the last turn is {turns[-1]}, not assistant"
    return None


def mask_numbers(source: str) -> str:
    """A source without its numbers: files of a dated series are one."""
    return re.sub(r"\d+", "#", source)


def compute_series_shares(rows: Mapping[str, int]) -> dict[str, float]:
    """The share of the rows that each series of sources has, from rows by source."""
    counts: Counter[str] = Counter()
    for source, count in rows.items():
        counts[mask_numbers(source)] += count
    total = counts.total()
    if not total:
        return {}
    return {name: count / total for name, count in counts.items()}


def compute_mix_distance(shares: Mapping[str, float], others: Mapping[str, float]) -> float:
    """Total variation distance 1/2 sum |p - q| in [0, 1]: the share of rows that come from
    elsewhere than before.
    """
    names = {*shares, *others}
    return sum(abs(shares.get(name, 0.0) - others.get(name, 0.0)) for name in names) / 2


def estimate_chance_distance(shares: Mapping[str, float], n: int) -> float:
    """About what `compute_mix_distance` is between shares and n rows drawn from them:
    1/2 sum sqrt(2 p (1 - p) / (pi n)).

    The mean absolute deviation of a binomial share in its normal approximation.
    """
    return sum(math.sqrt(2 * p * (1 - p) / (math.pi * n)) for p in shares.values()) / 2
