"""The suite: the row checks in their order, and what a text must hold."""

from poisonwatch.config import ExpectationConfig, ValidationConfig
from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.integrations.great_expectations.suite import build_suite
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
