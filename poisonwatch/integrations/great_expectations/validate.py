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
from poisonwatch.sources.unread import count_unread, describe_long, select_long
from poisonwatch.text.display import excerpt
from poisonwatch.text.language import make_language_detector
from poisonwatch.text.words import plural
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
    expectation. Copies are counted, and count neither as rows that fail nor beside them.

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
    refused = _choose_refused(table, failed)
    rejected = [_make_rejection(rows, table, i, failed[i]) for i in sorted(refused.values())]
    refusal = None
    if rejected:
        reasons = [failed[i].reason for i in refused.values()]
        earlier = min(facts.accepted, MOST_EARLIER_COUNTED)
        most_share = validation.max_rejected_share
        refusal = _find_too_many(
            reasons, rejected[0], table, earlier=earlier, most_share=most_share
        )
    checks = [check for check, _ in results]
    # After the shares: a batch of broken rows fails most of what stops an audit, too.
    refusal = refusal or _find_stop(checks)
    examples = _list_passed(table, refused)
    checks += _check_unread(rows, facts)
    found = Validation(examples, rejected, checks, table.copies, table.identical)
    if found.rows != len(rows):
        raise RuntimeError(
            f"{len(rows)} rows became {len(examples)} examples, {len(rejected)} rejections and "
            f"{table.copies} copies"
        )
    return found, refusal


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
        # Being a copy is no failure of the content, whoever asks.
        if expected.severity != "reject" or "copy_of" in expected.columns:
            continue
        for row in failing:
            failed.setdefault(row, expected)
    return failed


def _choose_refused(table: RowTable, failed: Mapping[int, AuditExpectation]) -> dict[int, int]:
    """By the first row of each content that is refused, the row whose failure is told: the first
    that fails.

    Copies differ in fields that are not read. Where the user's expectations are about these, one
    that fails refuses the content: it would be released at every place.
    """
    refused: dict[int, int] = {}
    for i in sorted(failed):
        refused.setdefault(table.first[i], i)
    return refused


def _list_passed(table: RowTable, refused: Mapping[int, int]) -> list[Example]:
    """Of each content that is not refused, the first row."""
    passed: list[Example] = []
    for i, example in enumerate(table.examples):
        if example is not None and table.first[i] == i and i not in refused:
            passed.append(example)
    return passed


def _check_unread(rows: SourceRows, facts: Facts) -> list[Check]:
    """A warning for every field that is not read and may hold what is trained on."""
    fields = select_long(count_unread(rows, facts.ignore), len(rows))
    found: list[Check] = []
    for field in fields:
        check = Check(
            expectation="expect_long_text_to_be_read",
            column=None,
            severity="warn",
            passed=False,
            failing=None,
            share=None,
            reason=describe_long(field),
            observed=f"as in {field.example}",
        )
        found.append(check)
    return found


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
    if expected.remedy:
        reason = f"{reason}; {expected.remedy}"
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
    failed: Sequence[str], first: Rejection, table: RowTable, earlier: int, most_share: float
) -> SourceError | None:
    """An error where too many of a table's rows are rejected for the reasons `failed`, `first`
    first; `earlier` rows that passed before count beside them, copies do not.
    """
    n = len(table.first) - table.copies
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
    if table.copies:
        beside = f", {plural(table.copies, 'copy', 'copies')} aside," + beside.removeprefix(",")
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
