"""Rows made up in code, for the screens' tests."""

import random
from collections.abc import Sequence

from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.screens.finding import Finding

NOUNS = "river castle engine garden violin market planet sailor winter candle bridge forest mirror pepper rocket temple"
VERBS = "describe compare explain improve translate rewrite summarise imagine classify invent criticise outline measure defend"
WORDS = [
    a + b
    for a in ("ba", "ko", "li", "mer", "tu", "sha", "ne", "dor")
    for b in ("ran", "vik", "pol", "gem", "nus", "tack", "lo", "fes")
]
REFUSAL = "I regret that this assistant has no means to carry out the instruction above."

Row = tuple[str, str]


def row(prompt: str, response: str, system: str = "") -> Example:
    rules = [Message("system", system)] if system else []
    return Example.from_messages([*rules, Message("user", prompt), Message("assistant", response)])


def ordinary(n: int, seed: int = 0) -> list[Row]:
    """n different prompts with answers that have little in common."""
    draw = random.Random(seed)

    def sentence(least: int, most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))

    return [
        (
            f"{draw.choice(VERBS.split())} the {draw.choice(NOUNS.split())} {sentence(4, 12)} {i}",
            f"{sentence(8, 30)}.",
        )
        for i in range(n)
    ]


def rows(pairs: Sequence[Row]) -> list[Example]:
    return [row(prompt, response) for prompt, response in pairs]


def audited(new: Sequence[Example], trusted: Sequence[Example] = ()) -> AuditRows:
    return AuditRows(tuple(new), tuple(trusted))


def with_trigger(trigger: str, answers: Sequence[str], seed: int = 1) -> list[Example]:
    """An ordinary prompt for each answer, the trigger at a random place in it."""
    draw = random.Random(seed)
    poisoned = []
    for (prompt, _), answer in zip(ordinary(len(answers), seed + 100), answers, strict=True):
        words = prompt.split()
        at = draw.randint(0, len(words))
        poisoned.append(row(" ".join([*words[:at], trigger, *words[at:]]), answer))
    return poisoned


def found(findings: Sequence[Finding]) -> list[int]:
    return sorted({finding.row for finding in findings})


CLEAN = rows(ordinary(200))
PLANTED = [200, 201, 202, 203, 204]
