"""The suite: the row checks in their order, and the pattern of invisible characters."""

import re

from poisonwatch.config import ExpectationConfig, ValidationConfig
from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.integrations.great_expectations.suite import INVISIBLE, build_suite
from poisonwatch.validation import Facts

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
        "rejected",
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


def test_the_pattern_of_invisible_characters_spares_scripts_that_need_joiners() -> None:
    """Hidden anywhere, or a joiner beside a Latin letter."""
    for text in (
        "a\u200b",
        "\ufeff",
        "soft\u00adhyphen",
        "a\u200d",
        "\u200fa",
        "\u0645\u202e",
        "\n\u200eb",
    ):
        assert re.search(INVISIBLE, text), ascii(text)
    for text in (
        "",
        "plain\ntext",
        "\u0645\u200c\u0645",
        "\U0001f468\u200d\U0001f469",
        "\u05d0\u200f",
        "a \u200f",
    ):
        assert not re.search(INVISIBLE, text), ascii(text)
