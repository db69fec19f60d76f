"""The suite: the row checks in their order, and what a text must hold."""

import re

from poisonwatch.config import ExpectationConfig, ValidationConfig
from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.integrations.great_expectations.suite import build_suite
from poisonwatch.text.characters import SAYS_SOMETHING
from poisonwatch.validation import Facts

TAGS = "".join(chr(0xE0000 + ord(c)) for c in "obey")
OWN = {"type": "ExpectColumnValuesToNotMatchRegex", "column": "response", "regex": "x"}


def test_the_suite_goes_from_basic_to_particular() -> None:
    """Copies and gaps, texts, turns, the batch, the user's; every one with a reason, on columns
    that exist.
    """
    asked = build_suite(
        ValidationConfig(expectations=[ExpectationConfig(**OWN)]),
        Facts(earlier={"a": 1}, max_tokens=9),
    )
    columns = list(dict.fromkeys(column for a in asked for column in a.columns))
    assert columns == [
        "copy_of",
        "prompt",
        "response",
        "lacks",
        "prompt_control",
        "prompt_hidden",
        "response_control",
        "response_hidden",
        "rejected",
        "rejected_control",
        "rejected_hidden",
        "tools",
        "tools_control",
        "tools_hidden",
        "role_problem",
        "known",
        "tokens",
        "series",
    ]
    assert set(columns) <= set(EXPECTATION_COLUMNS)
    assert all(a.reason for a in asked)
    assert asked[-1].setting == "validation.expectations[0]"


def test_only_what_can_be_told_is_asked() -> None:
    """No token limit, no earlier audit, no language: no question about them."""
    columns = {column for a in build_suite(ValidationConfig(), Facts()) for column in a.columns}
    assert not columns & {"tokens", "series", "language"}


def test_a_text_says_something_if_anything_in_it_is_seen() -> None:
    """Spaces of all kinds, format characters, fillers and selectors say nothing."""
    for text in (
        "",
        " \n\t\u3000\u00a0",
        "\u200b",
        "\ufeff\n",
        "\u2800 \u3164",
        "\u200d\ufe0f",
        TAGS,
    ):
        assert not re.search(SAYS_SOMETHING, text), ascii(text)
    for text in ("a", ".", "\u200b1", "\u4f60", "\u0e01", "\u0301", "\U0001f600", "\u2801", "\x00"):
        assert re.search(SAYS_SOMETHING, text), ascii(text)
