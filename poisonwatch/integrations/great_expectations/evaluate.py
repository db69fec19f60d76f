"""Validation: rows through the Great Expectations suite, in memory, without a word to anyone."""

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from poisonwatch.config import ValidationConfig
from poisonwatch.errors import ConfigError, SourceError
from poisonwatch.examples import Rejection
from poisonwatch.integrations.great_expectations.frame import INDEX, RowTable, build_table
from poisonwatch.integrations.great_expectations.suite import (
    READABLE,
    AuditExpectation,
    build_suite,
)
from poisonwatch.sources.open import SourceRows
from poisonwatch.text.display import excerpt
from poisonwatch.text.language import make_language_detector
from poisonwatch.validation import Check, Facts, Validation

logging.getLogger("great_expectations.data_context.types.base").setLevel(
    logging.WARNING
)  # it tells of every temporary folder

EXCERPT_CHARACTERS = 400
REASONS_SHOWN = 3
MOST_EARLIER_COUNTED = (
    50  # one bad row alone is all of a pull; a column that vanished spoils hundreds
)
PLACE_KEY = "asked"  # an expectation's place in the suite, in its meta
RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": [INDEX],
    "return_unexpected_index_query": False,
}

CheckResult = tuple[Check, list[int]]  # an expectation's check, and the rows that fail it


def check_rows(
    rows: SourceRows,
    validation: ValidationConfig,
    facts: Facts = Facts(),  # noqa: B008  (it is frozen)
) -> Validation:
    """Validate every row: which pass, which are rejected and why, and what came of every
    expectation.

    Raises ConfigError where an expectation of the user's cannot be evaluated, SourceError where a
    larger share of the rows than `max_rejected_share` fails, no row is left of some, or an
    expectation of severity stop fails.
    """
    asked = build_suite(validation, facts)
    columns = {column for a in asked for column in (*a.columns, a.detail) if column}
    language = make_language_detector(validation.languages) if "language" in columns else None
    table = build_table(rows, facts, columns, language)
    found = [*_evaluate([READABLE], table.problems), *_evaluate(asked, table.readable)]
    failed: dict[int, AuditExpectation] = {}
    for a, (_, failing) in zip([READABLE, *asked], found, strict=True):
        if a.severity == "reject":
            for row in failing:
                failed.setdefault(row, a)
    checks = [check for check, _ in found]
    if failed:
        first = min(failed)
        _raise_if_too_many_fail(
            list(failed.values()),
            _make_rejection(rows, table, first, failed[first]),
            len(rows),
            min(facts.accepted, MOST_EARLIER_COUNTED),
            validation,
        )
    _raise_on_stop(checks)
    rejected = [_make_rejection(rows, table, i, failed[i]) for i in sorted(failed)]
    examples = [
        example
        for i, example in enumerate(table.examples)
        if i not in failed and example is not None
    ]
    if len(examples) + len(rejected) != len(rows):
        raise RuntimeError(
            f"{len(rows)} rows became {len(examples)} examples and {len(rejected)} rejections"
        )
    return Validation(examples, rejected, checks)


def _make_rejection(
    rows: SourceRows, table: RowTable, i: int, asked: AuditExpectation
) -> Rejection:
    """Row i is rejected for an expectation."""
    row, draft = rows.raw[i], rows.drafts[i]
    detail = table.detail(i, asked.detail) if asked.detail else None
    text = " / ".join(text for _, text in (*draft.turns, *draft.rejected) if text)
    return Rejection(
        row.source,
        row.position,
        row.place,
        f"{asked.kind}({', '.join(asked.columns)})",
        f"{asked.reason}: {detail}" if detail else asked.reason,
        excerpt(text[: 4 * EXCERPT_CHARACTERS], EXCERPT_CHARACTERS),
    )


def _raise_if_too_many_fail(
    failed: Sequence[AuditExpectation],
    first: Rejection,
    n: int,
    beside: int,
    validation: ValidationConfig,
) -> None:
    """Raises SourceError where too many of n rows are rejected, `first` first; some that passed
    before count `beside` them.
    """
    share = len(failed) / (n + beside)
    if share <= validation.max_rejected_share and len(failed) < n + beside:
        return
    reasons = Counter(a.reason for a in failed).most_common(REASONS_SHOWN)
    most = "; ".join(f"{excerpt(reason, 100)} ({count})" for reason, count in reasons)
    limit = f"more than validation.max_rejected_share ({validation.max_rejected_share:.0%}) allows"
    raise SourceError(
        f"{len(failed)} of {n} rows{f', beside {beside} that passed before,' if beside else ''} ({share:.0%}) fail validation, "
        f"{'and none is left' if len(failed) == n + beside else limit}; "
        f"the first is {first.place}: {excerpt(first.reason, 200)}; most often: {most}"
    )


def _raise_on_stop(checks: Sequence[Check]) -> None:
    """Raises SourceError where an expectation that stops the audit fails."""
    for check in checks:
        if check.severity == "stop" and not check.passed:
            raise SourceError(
                f"validation stops the audit: {excerpt(check.told, 400)}: look at the rows, or give {check.expectation} the severity warn"
            )


def _evaluate(asked: Sequence[AuditExpectation], frame: pd.DataFrame) -> list[CheckResult]:
    """What came of each expectation on a frame."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
        batch_parameters={"dataframe": frame}
    )
    # Strings in Arrow's storage are matched by RE2, which knows neither \\u nor look-behind; those
    # in Python's by `re`.
    with pd.option_context("mode.string_storage", "python"), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "This pattern is interpreted as a regular expression, and has match groups"
        )
        return [
            _read_result(a, result, len(frame))
            for a, result in zip(asked, _run_suite(asked, batch), strict=True)
        ]


def _run_suite(asked: Sequence[AuditExpectation], batch: Any) -> list[Any]:
    """The suite's results in its order: Great Expectations returns them in its own. Together, since
    it hashes the frame at every call.
    """
    for i, a in enumerate(asked):
        a.expectation.meta = {PLACE_KEY: i}
    try:
        suite = gx.ExpectationSuite(
            name="fine-tuning rows", expectations=[a.expectation for a in asked]
        )
        results = batch.validate(suite, result_format=RESULT_FORMAT).results
    except Exception:
        for a in asked:
            if a.setting is not None:
                _raise_if_unusable(a, batch)
        raise
    return sorted(results, key=lambda result: int(result.expectation_config.meta[PLACE_KEY]))


def _raise_if_unusable(asked: AuditExpectation, batch: Any) -> None:
    """Raises ConfigError where an expectation of the user's is what brought all down."""
    try:
        batch.validate(asked.expectation, result_format=RESULT_FORMAT)
    except Exception as error:
        raise _make_unusable_error(asked, str(error)) from error


def _make_unusable_error(asked: AuditExpectation, said: str) -> Exception:
    where = f"{asked.kind} cannot be evaluated on {', '.join(asked.columns) or 'these rows'}: {excerpt(said, 200)}"
    return (
        RuntimeError(where) if asked.setting is None else ConfigError(f"{asked.setting}: {where}")
    )


def _read_result(asked: AuditExpectation, result: Any, n: int) -> CheckResult:
    if (problem := _find_exception(result.exception_info)) is not None:
        raise _make_unusable_error(asked, problem)
    values = result.result
    if asked.on_rows and "unexpected_count" not in values:
        raise _make_unusable_error(asked, "it does not tell which rows fail")
    failing: int | None = None
    share: float | None = None
    observed: str | None
    if asked.on_rows:
        looked_at = values["element_count"] - values.get("missing_count", 0)
        failing = int(values["unexpected_count"])
        share = failing / looked_at if looked_at else 0.0
        held = f"holds for {looked_at - failing:,} of {looked_at:,} rows"
        observed = held if asked.mostly < 1 else f"{failing:,} of {looked_at:,} rows fail"
    else:
        observed = "no rows" if not n and asked.columns else _describe_observed(values)
    passed = bool(result.success) or asked.severity == "note" or observed == "no rows"
    check = Check(
        asked.kind,
        ", ".join(asked.columns) or None,
        asked.severity,
        passed,
        failing,
        share,
        asked.reason,
        observed,
    )
    return check, [int(index[INDEX]) for index in values.get("unexpected_index_list") or []]


def _find_exception(info: Mapping[str, Any]) -> str | None:
    """What went wrong while an expectation was evaluated: `info` is about it as a whole, or has an
    entry for every metric.
    """
    entries = [info] if "raised_exception" in info else list(info.values())
    raised = [entry for entry in entries if entry["raised_exception"]]
    return str(raised[0]["exception_message"]) if raised else None


def _describe_observed(values: Mapping[str, Any]) -> str | None:
    """What an expectation on the batch measured, in words; values of rows may be among it."""
    value = values.get("observed_value")
    if value is None and values.get("partial_unexpected_list"):
        return excerpt(f"unexpected: {', '.join(map(str, values['partial_unexpected_list']))}", 200)
    if isinstance(value, float):
        return f"{value:.4g}"
    return None if value is None else excerpt(str(value), 200)
