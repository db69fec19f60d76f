"""The user's own expectations, refused where they make no sense before any row is looked at."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import great_expectations.expectations as gxe
from great_expectations.compatibility import pydantic
from great_expectations.expectations.expectation import ColumnAggregateExpectation, Expectation

from poisonwatch.config import ExpectationConfig
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS, RECORD_PREFIX
from poisonwatch.integrations.great_expectations.expectation import (
    ROW_EXPECTATIONS,
    AuditExpectation,
    list_columns,
)
from poisonwatch.text.display import excerpt

ROW_COUNTS = ("ExpectTableRowCountToBeBetween", "ExpectTableRowCountToEqual")

# Parts of the names of types that speak SQL, or are about schemas and types: what is not text is
# told apart when a row is read.
UNUSABLE_TYPES = ("LikePattern", "OfType", "TypeList")

# Fields of every type that are not the user's to set.
RESERVED_SETTINGS = {*Expectation.__fields__, "batch_id", "row_condition", "condition_parser"}

PROBLEMS_SHOWN = 3  # of one expectation's settings
LONGEST_NAME = 40  # characters of a name from the audit file, in an error
LONGEST_TYPE = 60
LONGEST_REASON = 200


def _is_usable(name: str, kind: object) -> bool:
    if not isinstance(kind, type) or any(word in name for word in UNUSABLE_TYPES):
        return False
    return name in ROW_COUNTS or issubclass(kind, (*ROW_EXPECTATIONS, ColumnAggregateExpectation))


# The types that users can name: those on rows, on a column, and on how many rows there are.
EXPECTATION_TYPES: dict[str, type[Expectation]] = {
    name: kind for name, kind in vars(gxe).items() if _is_usable(name, kind)
}


def build_user_expectations(expectations: Sequence[ExpectationConfig]) -> list[AuditExpectation]:
    """The user's own expectations.

    Raises ConfigError where a type, a setting or a column does not exist, or rows are to be
    rejected by what says nothing of single rows.
    """
    built: list[AuditExpectation] = []
    for i, expectation in enumerate(expectations):
        built.append(_build_user_expectation(expectation, f"validation.expectations[{i}]"))
    return built


def _build_user_expectation(config: ExpectationConfig, setting: str) -> AuditExpectation:
    """An expectation of the user's, from the place `setting` in the audit file."""
    kind = _find_type(config.type, setting)
    given = dict(config.model_extra or {})
    _check_settings(config.type, kind, given, setting)
    try:
        expectation = kind(**given)
    except (pydantic.ValidationError, ValueError, TypeError) as error:
        problem = _format_validation_error(error)
        # Not from the error: it holds the settings as they came, hostile names included.
        raise ConfigError(
            f"{setting}: {config.type} cannot be made of these settings: {problem}"
        ) from None
    _check_columns(expectation, setting)
    columns = ", ".join(list_columns(expectation)) or "the batch"
    reason = config.reason or f"{config.type} fails on {columns}"
    expected = AuditExpectation(expectation, reason, setting=setting)
    return _choose_severity(expected, config)


def _find_type(name: str, setting: str) -> type[Expectation]:
    kind = EXPECTATION_TYPES.get(name)
    if kind is None:
        raise ConfigError(
            f"{setting}: unknown type {excerpt(name, LONGEST_TYPE)}; "
            f"the nearest known are {_suggest_types(name)}"
        )
    return kind


def _check_settings(
    name: str, kind: type[Expectation], given: Mapping[str, Any], setting: str
) -> None:
    """Raises ConfigError where a type does not have one of the given settings."""
    for value in given.values():
        # Great Expectations would take it, and fail on every row for want of a value.
        if isinstance(value, dict) and "$PARAMETER" in value:
            raise ConfigError(
                f"{setting}: {name} cannot take $PARAMETER: "
                "there are no run-time parameters, write the value"
            )
    allowed = set(kind.__fields__) - RESERVED_SETTINGS
    unknown = given.keys() - allowed
    if unknown:
        raise ConfigError(
            f"{setting}: {name} has no {excerpt(min(unknown), LONGEST_NAME)}; "
            f"allowed are {', '.join(sorted(allowed))}"
        )


def _check_columns(expectation: Expectation, setting: str) -> None:
    """Raises ConfigError where an expectation is about a column that does not exist."""
    for column in list_columns(expectation):
        # Whether rows have a field of that name is not known before they are read.
        if column not in EXPECTATION_COLUMNS and not column.startswith(RECORD_PREFIX):
            raise ConfigError(
                f"{setting}: there is no column {excerpt(column, LONGEST_NAME)}; "
                f"there are {', '.join(EXPECTATION_COLUMNS)}, "
                "and record.NAME for a field of the rows"
            )


def _choose_severity(expected: AuditExpectation, config: ExpectationConfig) -> AuditExpectation:
    """With the user's severity; else what is on rows rejects them, and all else warns."""
    # An expectation that holds if most rows fulfil it is one on the batch.
    if expected.on_rows and expected.mostly == 1:
        return replace(expected, severity=config.severity or "reject")
    if config.severity == "reject":
        name = config.type
        if expected.on_rows:
            name = f"with mostly, {config.type}"
        raise ConfigError(
            f"{expected.setting}: {name} is about the whole batch and cannot reject single rows: "
            "use severity warn or stop"
        )
    return replace(expected, severity=config.severity or "warn")


def _suggest_types(name: str) -> str:
    """The types whose names are nearest, whether the user writes them as a class or with
    underscores.
    """
    by_lower_case = {known.lower(): known for known in EXPECTATION_TYPES}
    written = name.replace("_", "").lower()
    # No cut-off: three names are of more help than none, however far they are.
    nearest = difflib.get_close_matches(written, by_lower_case, n=3, cutoff=0.0)
    return ", ".join(by_lower_case[found] for found in nearest)


def _format_validation_error(error: Exception) -> str:
    """What a validation error says, in one line."""
    if not isinstance(error, pydantic.ValidationError):
        return excerpt(str(error), LONGEST_REASON)
    problems: list[str] = []
    for problem in error.errors()[:PROBLEMS_SHOWN]:
        place = ".".join(map(str, problem["loc"]))
        problems.append(f"{place}: {problem['msg']}")
    return excerpt("; ".join(problems), LONGEST_REASON)
