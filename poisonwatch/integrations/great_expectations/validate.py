"""Validation: rows through the Great Expectations suite, which pass, and which are kept out."""

from collections import Counter
from collections.abc import Mapping, Sequence

from poisonwatch.config import ValidationConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Rejection
from poisonwatch.integrations.great_expectations.evaluate import CheckResult, evaluate
from poisonwatch.integrations.great_expectations.expectation import AuditExpectation
from poisonwatch.integrations.great_expectations.frame import RowTable, build_table
from poisonwatch.integrations.great_expectations.suite import READABLE, build_suite
from poisonwatch.sources.open import SourceRows
from poisonwatch.text.display import excerpt
from poisonwatch.text.language import make_language_detector
from poisonwatch.validation import Check, Facts, Validation

EXCERPT_CHARACTERS = 400
REASONS_SHOWN = 3

# One bad row alone is all of a pull, beside rows that passed before it is few; a column that
# vanished spoils hundreds, and is not to be outweighed by them.
MOST_EARLIER_COUNTED = 50


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
    found, refusal = try_rows(rows, validation, facts)
    if refusal is not None:
        raise refusal
    return found


def try_rows(
    rows: SourceRows,
    validation: ValidationConfig,
    facts: Facts = Facts(),  # noqa: B008  (it is frozen)
) -> tuple[Validation, SourceError | None]:
    """Validate every row, and say what an audit would stop with; None where it would go on.

    Raises ConfigError where an expectation of the user's cannot be evaluated.
    """
    suite = build_suite(validation, facts)
    table = _build_table(rows, suite, validation, facts)
    results = [*evaluate([READABLE], table.problems), *evaluate(suite, table.readable)]
    failed = _find_first_failures([READABLE, *suite], results)
    rejected = [_make_rejection(rows, table, i, failed[i]) for i in sorted(failed)]
    refusal = None
    if rejected:
        reasons = [expected.reason for expected in failed.values()]
        earlier = min(facts.accepted, MOST_EARLIER_COUNTED)
        most_share = validation.max_rejected_share
        refusal = _find_too_many(
            reasons, rejected[0], n=len(rows), earlier=earlier, most_share=most_share
        )
    checks = [check for check, _ in results]
    # After the shares: a batch of broken rows fails most of what stops an audit, too.
    refusal = refusal or _find_stop(checks)
    examples = _list_passed(table, failed)
    if len(examples) + len(rejected) != len(rows):
        raise RuntimeError(
            f"{len(rows)} rows became {len(examples)} examples and {len(rejected)} rejections"
        )
    return Validation(examples, rejected, checks), refusal


def _build_table(
    rows: SourceRows, suite: Sequence[AuditExpectation], validation: ValidationConfig, facts: Facts
) -> RowTable:
    """The rows with the columns that the suite is about."""
    columns: set[str] = set()
    for expected in suite:
        columns.update(expected.columns)
        if expected.detail is not None:
            columns.add(expected.detail)
    # The detector is an extra that need not be installed, and takes a moment to load.
    language = None
    if "language" in columns:
        language = make_language_detector(validation.languages)
    return build_table(rows, facts, columns, language)


def _find_first_failures(
    suite: Sequence[AuditExpectation], results: Sequence[CheckResult]
) -> dict[int, AuditExpectation]:
    """For each row that is rejected, the first expectation that rejects it."""
    failed: dict[int, AuditExpectation] = {}
    for expected, (_, failing) in zip(suite, results, strict=True):
        if expected.severity == "reject":
            for row in failing:
                failed.setdefault(row, expected)
    return failed


def _list_passed(table: RowTable, failed: Mapping[int, AuditExpectation]) -> list[Example]:
    passed: list[Example] = []
    for i, example in enumerate(table.examples):
        if example is not None and i not in failed:
            passed.append(example)
    return passed


def _make_rejection(
    rows: SourceRows, table: RowTable, i: int, expected: AuditExpectation
) -> Rejection:
    """Row i is rejected for an expectation."""
    row, draft = rows.raw[i], rows.drafts[i]
    reason = expected.reason
    if expected.detail:
        detail = table.detail(i, expected.detail)
        if detail:
            reason = f"{reason}: {detail}"
    text = " / ".join(turn.text for turn in (*draft.turns, *draft.rejected) if turn.text)
    return Rejection(
        source=row.source,
        position=row.position,
        place=row.place,
        expectation=f"{expected.kind}({', '.join(expected.columns)})",
        reason=reason,
        # Cut first: a row of many megabytes need not be cleaned to show its beginning.
        text=excerpt(text[: 4 * EXCERPT_CHARACTERS], EXCERPT_CHARACTERS),
    )


def _find_too_many(
    failed: Sequence[str], first: Rejection, n: int, earlier: int, most_share: float
) -> SourceError | None:
    """An error where too many of n rows are rejected for the reasons `failed`, `first` first;
    `earlier` rows that passed before count beside them.
    """
    share = len(failed) / (n + earlier)
    none_is_left = len(failed) == n + earlier
    if share <= most_share and not none_is_left:
        return None
    limit = f"more than validation.max_rejected_share ({most_share:.0%}) allows"
    if none_is_left:
        limit = "and none is left"
    beside = ""
    if earlier:
        beside = f", beside {earlier} that passed before,"
    reasons = Counter(failed).most_common(REASONS_SHOWN)
    most_often = "; ".join(f"{excerpt(reason, 100)} ({count})" for reason, count in reasons)
    return SourceError(
        f"{len(failed)} of {n} rows{beside} ({share:.0%}) fail validation, {limit}; "
        f"the first is {first.place}: {excerpt(first.reason, 200)}; most often: {most_often}"
    )


def _find_stop(checks: Sequence[Check]) -> SourceError | None:
    """An error where an expectation that stops the audit fails."""
    for check in checks:
        if check.severity == "stop" and not check.passed:
            return SourceError(
                f"validation stops the audit: {excerpt(check.failure_message, 400)}: "
                f"look at the rows, or give {check.expectation} the severity warn"
            )
    return None
