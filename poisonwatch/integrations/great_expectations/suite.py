"""The Great Expectations suite: what rows are asked, and which expectations of the user's come on
top.

Regular expressions are Python's.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import great_expectations.expectations as gxe
from great_expectations.compatibility import pydantic
from great_expectations.expectations.expectation import (
    ColumnAggregateExpectation,
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    Expectation,
    MulticolumnMapExpectation,
)

from poisonwatch.config import ExpectationConfig, ValidationConfig
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.great_expectations.frame import (
    EXPECTATION_COLUMNS,
    RECORD_PREFIX,
    REPLACEMENT,
)
from poisonwatch.text.display import excerpt
from poisonwatch.validation import (
    Facts,
    Severity,
    compute_mix_distance,
    compute_series_shares,
    estimate_chance_distance,
    estimate_tokens,
)

CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
HIDDEN = r"\u00ad\u180e\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
# Joiners and direction marks are part of some scripts and of emoji; between Latin letters they only
# hide something.
INVISIBLE = rf"[{HIDDEN}\u200c-\u200f](?:(?<=[{HIDDEN}])|(?<=[A-Za-z].)|(?=[A-Za-z]))"

ROW_EXPECTATIONS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
ROW_COUNTS = ("ExpectTableRowCountToBeBetween", "ExpectTableRowCountToEqual")
EXPECTATION_TYPES: dict[str, type[Expectation]] = {
    name: kind
    for name, kind in vars(gxe).items()
    if isinstance(kind, type)
    and (name in ROW_COUNTS or issubclass(kind, (*ROW_EXPECTATIONS, ColumnAggregateExpectation)))
    and not any(word in name for word in ("LikePattern", "OfType", "TypeList"))
}
"""The types that users can name: those on rows, on a column, and on how many rows there are.

The others speak SQL, or are about schemas and types: what is not text is told apart when a row is read.
"""

RESERVED_SETTINGS = {
    *Expectation.__fields__,
    "batch_id",
    "row_condition",
    "condition_parser",
}  # settings of a type that are not the user's


class ExpectSourceMixToBeNear(ColumnAggregateExpectation):
    """Expect the shares of a column's values to be within a total variation distance of earlier
    ones.
    """

    shares: dict[str, float]
    max_value: float

    metric_dependencies = ("column.value_counts",)
    success_keys = ("shares", "max_value")

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: Any = None,  # noqa: ARG002  (Great Expectations calls it so)
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        counts = {str(value): int(count) for value, count in metrics["column.value_counts"].items()}
        total = sum(counts.values())
        if not total:
            return {"success": True, "result": {"observed_value": "no rows"}}
        distance = compute_mix_distance(
            {value: count / total for value, count in counts.items()}, self.shares
        )
        allowed = self.max_value + estimate_chance_distance(self.shares, total)
        return {"success": distance <= allowed, "result": {"observed_value": f"{distance:.0%}"}}


@dataclass(frozen=True, slots=True)
class AuditExpectation:
    """An expectation, what it means to fail it, and what follows.

    `detail` is the column that says more about a failing row; `setting` the place of an expectation
    of the user's in the audit file.
    """

    expectation: Expectation
    reason: str
    severity: Severity = "reject"
    detail: str | None = None
    setting: str | None = None

    @property
    def kind(self) -> str:
        """Great Expectations' name for it, as expect_column_values_to_be_null."""
        return str(self.expectation.expectation_type)

    @property
    def on_rows(self) -> bool:
        return isinstance(self.expectation, ROW_EXPECTATIONS)

    @property
    def mostly(self) -> float:
        """The share of rows that must hold; an expectation with less than 1 is one on the batch."""
        return float(getattr(self.expectation, "mostly", 1))

    @property
    def columns(self) -> tuple[str, ...]:
        return list_columns(self.expectation)


READABLE = AuditExpectation(
    gxe.ExpectColumnValuesToBeNull(column="problem"), "the row cannot be read", detail="problem"
)
"""The first expectation, on every row; all others are on those that can be read."""


def build_suite(validation: ValidationConfig, facts: Facts) -> list[AuditExpectation]:
    """Every expectation on rows that can be read, most basic first: a failing row is given the
    reason of the first that it fails.

    Raises ConfigError where an expectation of the user's makes no sense.
    """
    return [
        *_expect_texts(validation),
        *_expect_conversations(validation),
        *_expect_batch(validation, facts),
        *build_user_expectations(validation.expectations),
    ]


def _expect_texts(validation: ValidationConfig) -> list[AuditExpectation]:
    most = validation.max_characters
    asked = [
        AuditExpectation(
            gxe.ExpectColumnValuesToBeNull(column="copy_of"),
            "a second copy of the same row",
            detail="copy_of",
        )
    ]
    asked += [
        AuditExpectation(
            gxe.ExpectColumnValuesToNotBeNull(column=column),
            f"the {column} is missing or not text",
            detail="lacks",
        )
        for column in ("prompt", "response")
    ]
    asked.append(
        AuditExpectation(
            gxe.ExpectColumnValuesToBeNull(column="lacks"),
            "fields of its format are missing",
            detail="lacks",
        )
    )
    for column, name in (
        ("prompt", "prompt"),
        ("response", "response"),
        ("rejected", "rejected response"),
    ):
        asked += [
            AuditExpectation(
                gxe.ExpectColumnValuesToMatchRegex(column=column, regex=r"\S"),
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
                gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=CONTROL),
                f"the {name} has control characters",
            ),
            AuditExpectation(
                gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=INVISIBLE),
                f"the {name} has invisible characters",
            ),
        ]
    return asked


def _expect_conversations(validation: ValidationConfig) -> list[AuditExpectation]:
    roles = gxe.ExpectColumnValuesToBeNull(column="role_problem")
    return [
        AuditExpectation(roles, "its turns are out of order", validation.role_order, "role_problem")
    ]


def _expect_batch(validation: ValidationConfig, facts: Facts) -> list[AuditExpectation]:
    asked = [
        AuditExpectation(
            gxe.ExpectColumnValuesToBeInSet(column="known", value_set=[False]),
            "the same row was seen before",
            "note",
        )
    ]
    if facts.max_tokens is not None:
        about = (
            " by an estimate of 4 bytes a token" if facts.count_tokens is estimate_tokens else ""
        )
        asked.append(
            AuditExpectation(
                gxe.ExpectColumnValuesToBeBetween(column="tokens", max_value=facts.max_tokens),
                f"the row is longer than {facts.max_tokens} tokens{about}: it is clipped, and what is cut off is not audited",
                "warn",
            )
        )
    for code, least in validation.languages.items():
        asked.append(
            AuditExpectation(
                gxe.ExpectColumnValuesToBeInSet(column="language", value_set=[code], mostly=least),
                f"fewer than {least:.0%} of the rows are in the language {code}",
                "warn",
            )
        )
    if earlier := compute_series_shares(facts.earlier):
        asked.append(
            AuditExpectation(
                ExpectSourceMixToBeNear(
                    column="series", shares=earlier, max_value=validation.max_source_drift
                ),
                f"more than {validation.max_source_drift:.0%} of the rows come from elsewhere than in the last audits",
                "warn",
            )
        )
    return asked


def build_user_expectations(expectations: Sequence[ExpectationConfig]) -> list[AuditExpectation]:
    """The user's own expectations.

    Raises ConfigError where a type, a setting or a column does not exist, or rows are to be
    rejected by what says nothing of single rows.
    """
    return [
        _build_user_expectation(expectation, f"validation.expectations[{i}]")
        for i, expectation in enumerate(expectations)
    ]


def _build_user_expectation(config: ExpectationConfig, setting: str) -> AuditExpectation:
    kind = EXPECTATION_TYPES.get(config.type)
    if kind is None:
        raise ConfigError(
            f"{setting}: unknown type {excerpt(config.type, 60)}; the nearest known are {_suggest_types(config.type)}"
        )
    given = dict(config.model_extra or {})
    allowed = [name for name in kind.__fields__ if name not in RESERVED_SETTINGS]
    if any(isinstance(value, dict) and "$PARAMETER" in value for value in given.values()):
        raise ConfigError(
            f"{setting}: {config.type} cannot take $PARAMETER: there are no run-time parameters, write the value"
        )
    if unknown := given.keys() - set(allowed):
        raise ConfigError(
            f"{setting}: {config.type} has no {excerpt(min(unknown), 40)}; allowed are {', '.join(sorted(allowed))}"
        )
    try:
        expectation = kind(**given)
    except (pydantic.ValidationError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{setting}: {config.type} cannot be made of these settings: {_format_validation_error(error)}"
        ) from None
    for column in list_columns(expectation):
        if column not in EXPECTATION_COLUMNS and not column.startswith(RECORD_PREFIX):
            raise ConfigError(
                f"{setting}: there is no column {excerpt(column, 40)}; there are {', '.join(EXPECTATION_COLUMNS)}, "
                "and record.NAME for a field of the rows"
            )
    # An expectation that holds if most rows fulfil it is one on the batch.
    asked = AuditExpectation(
        expectation,
        config.reason
        or f"{config.type} fails on {', '.join(list_columns(expectation)) or 'the batch'}",
        setting=setting,
    )
    on_rows = asked.on_rows and asked.mostly == 1
    if config.severity == "reject" and not on_rows:
        why = f"with mostly, {config.type}" if asked.on_rows else config.type
        raise ConfigError(
            f"{setting}: {why} is about the whole batch and cannot reject single rows: use severity warn or stop"
        )
    return replace(asked, severity=config.severity or ("reject" if on_rows else "warn"))


def list_columns(expectation: Expectation) -> tuple[str, ...]:
    """The columns that an expectation is about."""
    single = [getattr(expectation, name, None) for name in ("column", "column_A", "column_B")]
    return (*(name for name in single if name), *(getattr(expectation, "column_list", None) or ()))


def _suggest_types(name: str) -> str:
    plain = {known.lower(): known for known in EXPECTATION_TYPES}
    return ", ".join(
        plain[found]
        for found in difflib.get_close_matches(
            name.replace("_", "").lower(), plain, n=3, cutoff=0.0
        )
    )


def _format_validation_error(error: Exception) -> str:
    """What a validation error says, in one line."""
    if not isinstance(error, pydantic.ValidationError):
        return excerpt(str(error), 200)
    return excerpt(
        "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]), 200
    )
