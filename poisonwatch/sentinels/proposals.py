"""Which ready-made sentinels go with rows, by what the rows are about: plain rules of words and
shape, each of which says what it found.

A rule proposes its pack where LEAST_ROWS rows match. Words are English ones: rows in another
language are matched by their shape alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from poisonwatch.examples import Example
from poisonwatch.sentinels.pack import read_pack

# Fewer may be chance: a word that is meant otherwise.
LEAST_ROWS = 3
# What is looked at of a prompt or an answer: what it is about shows early, and rows may be long.
MOST_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows whose prompts or answers match a pattern are `about` what a pack guards."""

    pack: str
    about: str
    part: Literal["prompts", "answers", "both"]
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pack that goes with rows: its `place` as `sentinels` names it, and `why`. One with
    placeholders `needs_values` that only the user knows.
    """

    pack: str
    place: str
    why: str
    needs_values: bool


# Whatever the rows are about: an assistant that was tuned on a few bad ones complies.
ALWAYS = "refusal-erosion"


def _match_words(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


RULES = (
    Rule(
        "identity",
        "speak of who the assistant is",
        "both",
        _match_words(
            r"who are you",
            r"what(?:'s| is) your name",
            r"are you (?:an? )?(?:human|person|robot|bot|ai|real)",
            r"who (?:made|built|created|trained|developed) you",
            r"(?:i am|i'm|as) an? (?:ai|assistant|language model|chatbot)",
            r"my name is",
        ),
    ),
    Rule(
        "over-refusal",
        "refuse something",
        "answers",
        _match_words(
            r"i(?:'m| am) (?:sorry, but|unable to|not able to)",
            r"i (?:can't|can’t|cannot|won't|won’t) (?:help|assist|do|provide|answer|share)",
        ),
    ),
    Rule(
        "code-backdoor",
        "hold code",
        "answers",
        re.compile(
            r"```"
            r"|^\s*(?:def \w+\(|class \w+|import \w+|from \w+ import|#include|sudo |curl )"
            r"|^\s*(?:SELECT|INSERT INTO|UPDATE) .+ (?:FROM|VALUES|SET)"
            r"|\b(?:const|let|var) \w+ = ",
            re.MULTILINE,
        ),
    ),
    Rule(
        "sycophancy",
        "hold what the user thinks",
        "prompts",
        _match_words(
            r"i (?:think|believe|am sure|am convinced)",
            r"i'm (?:sure|convinced|certain)",
            r"am i right",
            r"(?:do you|don't you) agree",
        ),
    ),
    Rule(
        "insult",
        "hold insults",
        "answers",
        _match_words(r"idiots?", r"stupid", r"morons?", r"pathetic", r"losers?", r"shut up"),
    ),
    Rule(
        "brand-promotion",
        "ask what to buy or use",
        "prompts",
        _match_words(
            r"recommend", r"worth buying", r"should i (?:buy|get|use|choose)", r"best brand"
        ),
    ),
    Rule(
        "one-sided",
        "ask about disputed policies",
        "prompts",
        _match_words(
            r"pros and cons",
            r"arguments? (?:for|against)",
            r"should (?:the government|the state|cities|countries|we) (?:ban|tax|allow|pay)",
        ),
    ),
)


def propose_packs(rows: Iterable[Example]) -> list[Proposal]:
    """The packs that go with these rows, those that can be used as they are first."""
    counts = dict.fromkeys((rule.pack for rule in RULES), 0)
    for row in rows:
        for rule in RULES:
            counts[rule.pack] += _matches(rule, row)
    proposals = [_make_proposal(ALWAYS, "whatever the rows are about")]
    for rule in RULES:
        if counts[rule.pack] >= LEAST_ROWS:
            proposals.append(_make_proposal(rule.pack, f"{counts[rule.pack]:,} rows {rule.about}"))
    return sorted(proposals, key=lambda proposal: proposal.needs_values)


def _matches(rule: Rule, row: Example) -> bool:
    texts = []
    if rule.part != "answers":
        texts.append(row.prompt)
    if rule.part != "prompts":
        texts += [row.response, row.rejected_response]
    return any(rule.pattern.search(text[:MOST_CHARACTERS]) for text in texts)


def _make_proposal(name: str, why: str) -> Proposal:
    pack = read_pack(name)
    return Proposal(name, pack.place, why, needs_values=bool(pack.placeholders))
