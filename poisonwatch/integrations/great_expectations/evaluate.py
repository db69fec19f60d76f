"""Run expectations on a frame with Great Expectations, in memory, without a word to anyone."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from poisonwatch.errors import ConfigError
from poisonwatch.integrations.great_expectations.expectation import AuditExpectation
from poisonwatch.integrations.great_expectations.frame import INDEX
from poisonwatch.text.display import excerpt
from poisonwatch.validation import Check

# It tells of every temporary folder.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

LONGEST_TEXT = 200  # characters of what Great Expectations says, or of values of rows
PLACE_KEY = "asked"  # an expectation's place in the suite, in its meta
# How many rows fail, and which: the second takes as long again, and is asked where some do.
COUNTS: dict[str, Any] = {"result_format": "BASIC"}
ROWS: dict[str, Any] = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": [INDEX],
    "return_unexpected_index_query": False,
}
NO_ROWS = "no rows"
# No row fails these where its cell is empty.
OF_VALUES = (
    gxe.ExpectColumnValuesToBeNull,
    gxe.ExpectColumnValuesToMatchRegex,
    gxe.ExpectColumnValuesToNotMatchRegex,
    gxe.ExpectColumnValueLengthsToBeBetween,
)


@dataclass(slots=True)
class Outcome:
    """What came of an expectation on rows: of those `asked`, which have something in the cell,
    `failing` failed, `rows` by their numbers. Of one on the whole batch whether it is `fulfilled`,
    and what was `observed`, in words.
    """

    asked: int = 0
    failing: int = 0
    rows: list[int] = field(default_factory=list)
    fulfilled: bool = True
    observed: str | None = None

    def add(self, other: "Outcome") -> None:
        """Count what came of the same expectation on more rows, each of which it asks by itself."""
        self.asked += other.asked
        self.failing += other.failing
        self.rows += other.rows

    def make_check(self, expected: AuditExpectation) -> Check:
        """What it means."""
        passed, failing, share, observed = self.fulfilled, None, None, self.observed
        if expected.on_rows:
            failing = self.failing
            # Without rows that are asked none fails.
            share = failing / max(self.asked, 1)
            passed = not failing or (self.asked - failing) / self.asked >= expected.mostly
            observed = f"{failing:,} of {self.asked:,} rows fail"
            if expected.mostly < 1:
                observed = f"holds for {self.asked - failing:,} of {self.asked:,} rows"
        return Check(
            expectation=expected.kind,
            column=", ".join(expected.columns) or None,
            severity=expected.severity,
            passed=passed or expected.severity == "note",
            failing=failing,
            share=share,
            reason=expected.reason,
            observed=observed,
        )


def evaluate(expected: Sequence[AuditExpectation], frame: pd.DataFrame) -> list[Outcome]:
    """What came of each expectation on a frame.

    Raises ConfigError where an expectation of the user's cannot be evaluated.
    """
    found = [_answer_of_no_values(one, frame) for one in expected]
    left = [one for one, outcome in zip(expected, found, strict=True) if outcome is None]
    asked = iter(_ask(left, frame))
    return [outcome or next(asked) for outcome in found]


def _answer_of_no_values(expected: AuditExpectation, frame: pd.DataFrame) -> Outcome | None:
    """What comes of an expectation of ours on a column that has no value: it cannot fail, and most
    rows have neither tools nor anything to hide. Great Expectations takes longer to say so than all
    else of a small audit's validation. None where it is to be asked.
    """
    if expected.setting is not None or not expected.on_rows or len(expected.columns) != 1:
        return None
    if not isinstance(expected.expectation, OF_VALUES) or frame[expected.columns[0]].notna().any():
        return None
    # That a cell is empty is asked of all rows, all else of cells that are not.
    asks_all = isinstance(expected.expectation, gxe.ExpectColumnValuesToBeNull)
    return Outcome(asked=len(frame) if asks_all else 0)


def _ask(expected: Sequence[AuditExpectation], frame: pd.DataFrame) -> list[Outcome]:
    """What Great Expectations says of each."""
    if not expected:
        return []
    # A context of its own, in memory: Great Expectations would look for one in the working folder.
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    # Not by a definition of a batch: the whole project would be written for it, in YAML.
    batch = asset.get_batch(asset.build_batch_request({"dataframe": frame}))
    with _use_python_patterns():
        found: list[Outcome] = []
        for asked, result in zip(expected, _run_suite(expected, batch, COUNTS), strict=True):
            found.append(_read_result(asked, result, len(frame)))
        failed = [i for i, one in enumerate(expected) if one.on_rows and found[i].failing]
        if failed:
            results = _run_suite([expected[i] for i in failed], batch, ROWS)
            for i, result in zip(failed, results, strict=True):
                found[i] = _read_result(expected[i], result, len(frame))
    return found


@contextmanager
def _use_python_patterns() -> Iterator[None]:
    """Regular expressions are Python's, groups included."""
    # Strings in Arrow's storage are matched by RE2, which knows neither \\u nor look-behind; those
    # in Python's by `re`.
    with pd.option_context("mode.string_storage", "python"), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "This pattern is interpreted as a regular expression, and has match groups"
        )
        yield


def _run_suite(
    expected: Sequence[AuditExpectation], batch: Any, result_format: dict[str, Any]
) -> list[Any]:
    """The suite's results in its order: Great Expectations returns them in its own."""
    expectations: list[Any] = []
    for i, asked in enumerate(expected):
        asked.expectation.meta = {PLACE_KEY: i}
        expectations.append(asked.expectation)
    # Together, since Great Expectations hashes the frame at every call.
    try:
        suite = gx.ExpectationSuite(name="fine-tuning rows", expectations=expectations)
        results = batch.validate(suite, result_format=result_format).results
    except Exception:
        # One of the user's may bring all down; which one, only they say by themselves.
        for asked in expected:
            if asked.setting is not None:
                _raise_if_unusable(asked, batch)
        raise
    return sorted(results, key=lambda result: int(result.expectation_config.meta[PLACE_KEY]))


def _raise_if_unusable(expected: AuditExpectation, batch: Any) -> None:
    """Raises ConfigError where an expectation of the user's is what brought all down."""
    try:
        batch.validate(expected.expectation, result_format=ROWS)
    except Exception as error:
        raise _make_unusable_error(expected, str(error)) from error


def _make_unusable_error(expected: AuditExpectation, problem: str) -> Exception:
    columns = ", ".join(expected.columns) or "these rows"
    message = f"{expected.kind} cannot be evaluated on {columns}: {excerpt(problem, LONGEST_TEXT)}"
    # One of ours that cannot be evaluated is a mistake of ours, not of the audit file.
    if expected.setting is None:
        return RuntimeError(message)
    return ConfigError(f"{expected.setting}: {message}")


def _read_result(expected: AuditExpectation, result: Any, n: int) -> Outcome:
    """What came of an expectation on n rows."""
    problem = _find_exception(result.exception_info)
    if problem is not None:
        raise _make_unusable_error(expected, problem)
    values = result.result
    if expected.on_rows:
        return _read_row_counts(expected, values)
    observed = _describe_observed(values)
    if not n and expected.columns:
        observed = NO_ROWS
    # Of no rows nothing can be measured, which Great Expectations takes for a failure.
    return Outcome(fulfilled=bool(result.success) or observed == NO_ROWS, observed=observed)


def _read_row_counts(expected: AuditExpectation, values: Mapping[str, Any]) -> Outcome:
    """How many rows are asked, and which of them fail."""
    if "unexpected_count" not in values:
        raise _make_unusable_error(expected, "it does not tell which rows fail")
    return Outcome(
        # A row whose cell is empty is not asked.
        asked=int(values["element_count"] - values.get("missing_count", 0)),
        failing=int(values["unexpected_count"]),
        rows=[int(index[INDEX]) for index in values.get("unexpected_index_list") or []],
    )


def _find_exception(info: Mapping[str, Any]) -> str | None:
    """What went wrong while an expectation was evaluated, if anything did."""
    # `info` is about the expectation as a whole, or has an entry for every metric.
    entries = [info]
    if "raised_exception" not in info:
        entries = list(info.values())
    for entry in entries:
        if entry["raised_exception"]:
            return str(entry["exception_message"])
    return None


def _describe_observed(values: Mapping[str, Any]) -> str | None:
    """What an expectation on the batch measured, in words; values of rows may be among it."""
    value = values.get("observed_value")
    if value is None and values.get("partial_unexpected_list"):
        unexpected = ", ".join(map(str, values["partial_unexpected_list"]))
        return excerpt(f"unexpected: {unexpected}", LONGEST_TEXT)
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.4g}"
    return excerpt(str(value), LONGEST_TEXT)
