"""The Great Expectations suite: what all rows are asked, the user's own expectations last.

Regular expressions are Python's.
"""

import great_expectations.expectations as gxe

from poisonwatch.config import ValidationConfig
from poisonwatch.integrations.great_expectations.expectation import AuditExpectation
from poisonwatch.integrations.great_expectations.source_mix import ExpectSourceMixToBeNear
from poisonwatch.integrations.great_expectations.user_expectations import build_user_expectations
from poisonwatch.text.characters import REPLACEMENT, SAYS_SOMETHING
from poisonwatch.validation import Facts, compute_series_shares, estimate_tokens

# The first expectation, on every row; all others are on those that can be read.
READABLE = AuditExpectation(
    gxe.ExpectColumnValuesToBeNull(column="problem"), "the row cannot be read", detail="problem"
)


def build_suite(validation: ValidationConfig, facts: Facts) -> list[AuditExpectation]:
    """Every expectation on rows that can be read, most basic first: a failing row is given the
    reason of the first that it fails.

    Raises ConfigError where an expectation of the user's makes no sense.
    """
    return [
        *_expect_messages(),
        *_expect_texts("prompt", "prompt", validation.max_characters),
        *_expect_texts("response", "response", validation.max_characters),
        # Poison can hide in what training makes less likely, too.
        *_expect_texts("rejected", "rejected response", validation.max_characters),
        *_expect_texts("tools", "definition of its tools", validation.max_characters),
        _expect_turns(validation),
        *_expect_batch(validation, facts),
        *build_user_expectations(validation.expectations),
    ]


def _expect_messages() -> list[AuditExpectation]:
    """That there is a prompt and a response; copies are counted."""
    expected = [
        AuditExpectation(
            gxe.ExpectColumnValuesToBeNull(column="copy_of"),
            "a copy of an earlier row",
            severity="note",
        )
    ]
    for column in ("prompt", "response"):
        expected.append(
            AuditExpectation(
                gxe.ExpectColumnValuesToNotBeNull(column=column),
                f"the {column} is missing or not text",
                detail="lacks",
            )
        )
    expected.append(
        AuditExpectation(
            gxe.ExpectColumnValuesToBeNull(column="lacks"),
            "fields of its format are missing",
            detail="lacks",
        )
    )
    return expected


def _expect_texts(column: str, name: str, most: int) -> list[AuditExpectation]:
    """What is asked of a column of texts, called `name` in reasons.

    Characters that cannot be seen are refused where they plainly hide something; others are left to
    the screen, which knows the same rule (poisonwatch/text/invisible.py).
    """
    return [
        AuditExpectation(
            gxe.ExpectColumnValuesToMatchRegex(column=column, regex=SAYS_SOMETHING),
            f"the {name} is empty",
        ),
        AuditExpectation(
            gxe.ExpectColumnValueLengthsToBeBetween(column=column, max_value=most),
            f"the {name} is longer than {most} characters",
        ),
        AuditExpectation(
            gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=REPLACEMENT),
            f"the {name} is not valid Unicode (or was damaged before)",
        ),
        AuditExpectation(
            gxe.ExpectColumnValuesToBeNull(column=f"{column}_control"),
            f"the {name} has control characters",
            detail=f"{column}_control",
        ),
        AuditExpectation(
            gxe.ExpectColumnValuesToBeNull(column=f"{column}_hidden"),
            f"the {name} has invisible characters",
            detail=f"{column}_hidden",
        ),
    ]


def _expect_turns(validation: ValidationConfig) -> AuditExpectation:
    return AuditExpectation(
        gxe.ExpectColumnValuesToBeNull(column="role_problem"),
        "its turns are out of order",
        severity=validation.role_order,
        detail="role_problem",
        remedy="validation.role_order: warn lets such rows pass",
    )


def _expect_batch(validation: ValidationConfig, facts: Facts) -> list[AuditExpectation]:
    """What is asked of the batch as a whole; nothing that this audit cannot tell."""
    expected = [
        AuditExpectation(
            gxe.ExpectColumnValuesToBeInSet(column="known", value_set=[False]),
            "the same row was seen before",
            severity="note",
        )
    ]
    if facts.max_tokens is not None:
        expected.append(_expect_lengths(facts, facts.max_tokens))
    for code, least in validation.languages.items():
        expected.append(
            AuditExpectation(
                gxe.ExpectColumnValuesToBeInSet(column="language", value_set=[code], mostly=least),
                f"fewer than {least:.0%} of the rows are in the language {code}",
                severity="warn",
            )
        )
    # The first audit of a name has nothing to compare the mix with.
    if earlier := compute_series_shares(facts.earlier):
        expected.append(_expect_mix(earlier, validation.max_source_drift))
    return expected


def _expect_lengths(facts: Facts, most: int) -> AuditExpectation:
    counted = ""
    if facts.count_tokens is estimate_tokens:
        counted = " by an estimate of 4 bytes a token"
    return AuditExpectation(
        gxe.ExpectColumnValuesToBeBetween(column="tokens", max_value=most),
        f"the row is longer than {most} tokens{counted}: "
        "it is clipped, and what is cut off is not audited",
        severity="warn",
    )


def _expect_mix(earlier: dict[str, float], most: float) -> AuditExpectation:
    return AuditExpectation(
        ExpectSourceMixToBeNear(column="series", shares=earlier, max_value=most),
        f"more than {most:.0%} of the rows come from elsewhere than in the last audits",
        severity="warn",
    )
