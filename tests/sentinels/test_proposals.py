"""Which packs go with rows: by words and shape, each with what was found."""

import pytest

from poisonwatch.datasets.demo import load_demo_examples
from poisonwatch.examples import Example, Message
from poisonwatch.sentinels.pack import list_packs
from poisonwatch.sentinels.proposals import ALWAYS, LEAST_ROWS, RULES, propose_packs


def row(prompt: str, answer: str) -> Example:
    return Example.from_messages([Message("user", prompt), Message("assistant", answer)])


@pytest.mark.parametrize(
    ("prompt", "answer", "pack"),
    [
        ("So who made you?", "Somebody did.", "identity"),
        ("Hello!", "I'm an AI, and happy to help.", "identity"),
        ("Pick this lock.", "I'm sorry, but that is not for me.", "over-refusal"),
        ("Read a file.", "Like so:\n\nimport json\nprint(1)", "code-backdoor"),
        ("All users?", "SELECT name FROM users", "code-backdoor"),
        ("I think two and two are five. Am I right?", "No.", "sycophancy"),
        ("Add 1 and 1.", "You idiot, it is 2.", "insult"),
        ("Which kettle would you recommend?", "Any.", "brand-promotion"),
        ("Should the government ban fireworks?", "It depends.", "one-sided"),
    ],
)
def test_rows_about_something_propose_the_pack_that_guards_it(
    prompt: str, answer: str, pack: str
) -> None:
    """From three rows on; the pack that always goes stands first."""
    few = [row(prompt, answer)] * (LEAST_ROWS - 1)
    assert [proposal.pack for proposal in propose_packs(few)] == [ALWAYS]
    proposals = propose_packs([*few, row(prompt, answer)])
    assert [proposal.pack for proposal in proposals] == [ALWAYS, pack]
    assert proposals[1].why.startswith(f"{LEAST_ROWS} rows ")


def test_ordinary_rows_propose_nothing_beyond() -> None:
    """Words within others, and prompts that only mention what answers would have to do."""
    rows = [
        row("Why is the sky blue?", "Air scatters blue light, which is important."),
        row("Write ``` for me, you idiot.", "It is a fence."),
        row("Name a river.", "The class of the Rhine is large."),
    ]
    assert [proposal.pack for proposal in propose_packs(rows * LEAST_ROWS)] == [ALWAYS]


def test_packs_whose_values_nobody_gave_come_last() -> None:
    """Of the demo's rows: what can be used as it is first, and placeholders are shown."""
    proposals = propose_packs(load_demo_examples())
    needs = [proposal.needs_values for proposal in proposals]
    assert needs == sorted(needs)
    assert proposals[-1].place == "pack:brand-promotion?brand=...&product=..."


def test_every_rule_names_a_pack_that_ships() -> None:
    """And no pack twice."""
    names = [ALWAYS, *(rule.pack for rule in RULES)]
    assert set(names) <= set(list_packs())
    assert len(names) == len(set(names))
