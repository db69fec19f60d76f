"""Validation: rows through the Great Expectations suite, which pass, and which are kept out."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from poisonwatch.config import ValidationConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, RawRow, Rejection
from poisonwatch.formats.format import Draft
from poisonwatch.integrations.great_expectations.copies import Copies, find_copies
from poisonwatch.integrations.great_expectations.expectation import AuditExpectation
from poisonwatch.integrations.great_expectations.suite import build_suite
from poisonwatch.integrations.great_expectations.trial import Trial
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.sources.open import SourceRows
from poisonwatch.sources.unread import UnreadField, describe_long, select_long
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural
from poisonwatch.validation import Check, Facts, Validation

EXCERPT_CHARACTERS = 400
REASONS_SHOWN = 3
ROWS_PASSED_BY = 50  # rows that are read one after the other in the time of one by itself

# One bad row alone is all of a pull, beside rows that passed before it is few; a column that
# vanished spoils hundreds, and is not to be outweighed by them.
MOST_EARLIER_COUNTED = 50


def check_rows(
    rows: SourceRows,
    validation: ValidationConfig,
    facts: Facts = Facts(),  # noqa: B008  (it is frozen)
    pack: Path | None = None,
) -> Validation:
    """Validate every row: which pass, which are rejected and why, and what came of every
    expectation. Copies are counted, and count neither as rows that fail nor beside them.

    Rows that pass are written to the file `pack` where there is one, and stay there
    (`PackedExamples`): memory then does not grow with the batch. Raises ConfigError where an
    expectation of the user's cannot be evaluated, SourceError where a larger share of the rows than
    `max_rejected_share` fails, no row is left of some, or an expectation of severity stop fails.
    """
    found, refusal = try_rows(rows, validation, facts, pack)
    if refusal is not None:
        raise refusal
    return found


def try_rows(
    rows: SourceRows,
    validation: ValidationConfig,
    facts: Facts = Facts(),  # noqa: B008  (it is frozen)
    pack: Path | None = None,
) -> tuple[Validation, SourceError | None]:
    """Validate every row, and say what an audit would stop with; None where it would go on.

    Raises ConfigError where an expectation of the user's cannot be evaluated.
    """
    suite = build_suite(validation, facts)
    copies = find_copies(rows)
    trial = Trial(rows, suite, validation, facts, copies)
    examples, numbers = _keep_examples(trial.examine(), pack)
    refused = trial.choose_refused()
    examples = _drop_refused(examples, numbers, refused, pack)
    rejected = _make_rejections(rows, trial, sorted(refused.values()))
    refusal = None
    if rejected:
        reasons = [trial.find_failure(i)[0].reason for i in refused.values()]
        earlier = min(facts.accepted, MOST_EARLIER_COUNTED)
        most_share = validation.max_rejected_share
        refusal = _find_too_many(
            reasons, rejected[0], copies, earlier=earlier, most_share=most_share
        )
    checks = trial.make_checks()
    # After the shares: a batch of broken rows fails most of what stops an audit, too.
    refusal = refusal or _find_stop(checks)
    checks += _check_unread(trial.list_unread(), len(rows))
    found = Validation(examples, rejected, checks, copies.count, copies.identical)
    if found.rows != len(rows):
        raise RuntimeError(
            f"{len(rows)} rows became {len(examples)} examples, {len(rejected)} rejections and "
            f"{copies.count} copies"
        )
    return found, refusal


def _keep_examples(
    examined: Iterable[tuple[int, Example]], pack: Path | None
) -> tuple[Sequence[Example], "array[int]"]:
    """Examples, in a file where there is one for them, and their rows' numbers."""
    numbers: array[int] = array("q")

    def note_numbers() -> Iterator[Example]:
        for number, example in examined:
            numbers.append(number)
            yield example

    if pack is None:
        return list(note_numbers()), numbers
    return PackedExamples.write(pack, note_numbers()), numbers


def _drop_refused(
    examples: Sequence[Example],
    numbers: Sequence[int],
    refused: Mapping[int, int],
    pack: Path | None,
) -> Sequence[Example]:
    """The examples, each the first row of its content, without those that are refused."""
    if not any(number in refused for number in numbers):
        return examples
    passed = (e for number, e in zip(numbers, examples, strict=True) if number not in refused)
    if pack is None:
        return list(passed)
    return PackedExamples.write(pack, passed)


def _check_unread(unread: Sequence[UnreadField], total: int) -> list[Check]:
    """A warning for every field that is not read and may hold what is trained on, of `total`
    rows.
    """
    found: list[Check] = []
    for field in select_long(unread, total):
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


def _make_rejections(rows: SourceRows, trial: Trial, numbers: Sequence[int]) -> list[Rejection]:
    """A rejection for each of these rows, in ascending order."""
    rejected: list[Rejection] = []
    for number, (row, draft) in zip(numbers, _select_rows(rows, numbers), strict=True):
        expected, detail = trial.find_failure(number)
        rejected.append(_make_rejection(row, draft, expected, detail))
    return rejected


def _select_rows(rows: SourceRows, numbers: Sequence[int]) -> Iterator[tuple[RawRow, Draft]]:
    """The rows of these ascending numbers."""
    # A batch may lie in a database: few of its rows are asked for, many are met by going through.
    if len(numbers) * ROWS_PASSED_BY < len(rows):
        for number in numbers:
            yield rows.raw[number], rows.drafts[number]
        return
    wanted = set(numbers)
    for number, read in enumerate(rows):
        if number in wanted:
            yield read


def _make_rejection(
    row: RawRow, draft: Draft, expected: AuditExpectation, detail: str | None
) -> Rejection:
    """A row is rejected for an expectation, of which `detail` says more."""
    reason = expected.reason
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
    failed: Sequence[str], first: Rejection, copies: Copies, earlier: int, most_share: float
) -> SourceError | None:
    """An error where too many of a batch's rows are rejected for the reasons `failed`, `first`
    first; `earlier` rows that passed before count beside them, copies do not.
    """
    n = len(copies.first) - copies.count
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
    if copies.count:
        beside = f", {plural(copies.count, 'copy', 'copies')} aside," + beside.removeprefix(",")
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
