"""What `poisonwatch check` does once rows were read: validation, what an audit would take, and what
would help.
"""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from poisonwatch.config import AuditConfig
from poisonwatch.examples import Rejection
from poisonwatch.model.effort import count_parameters, estimate_seconds, has_gpu, measure_gflops
from poisonwatch.sources.survey import Survey, list_trained, name_some, survey_source
from poisonwatch.text.words import plural
from poisonwatch.validation import Facts, Validation


@dataclass(frozen=True, slots=True)
class RejectedRows:
    """Rows of one `expectation`: how many, and where and why the first failed."""

    expectation: str
    rows: int
    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Validated:
    """What validation would say of the first `checked` rows; `refusal` is what an audit would stop
    with, None where it would not.
    """

    checked: int = 0
    rejected: tuple[RejectedRows, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str | None = None


def validate(config: AuditConfig, survey: Survey) -> Validated:
    """Rows through the real suite. A source that cannot be read whole is refused for that."""
    problems = survey.problems
    if not survey.rows and not problems:
        where = config.source.address
        problems = [f"{where} holds no rows: point `source` at a file with at least one"]
    if not len(survey.kept):
        return Validated(refusal=problems[0])
    from poisonwatch.integrations.great_expectations.validate import try_rows

    facts = Facts(max_tokens=config.stride.max_tokens, ignore=config.source.ignore)
    found, refusal = try_rows(survey.kept, config.validation, facts)
    if refusal is not None:
        problems = [*problems, str(refusal)]
    return Validated(
        checked=len(survey.kept),
        rejected=_group_rejections(found),
        warnings=tuple(found.warnings),
        refusal=next(iter(problems), None),
    )


def _group_rejections(validation: Validation) -> tuple[RejectedRows, ...]:
    """By expectation, those of most rows first."""
    counts: Counter[str] = Counter()
    first: dict[str, Rejection] = {}
    for rejection in validation.rejected:
        counts[rejection.expectation] += 1
        first.setdefault(rejection.expectation, rejection)
    groups = []
    for expectation, rows in counts.most_common():
        example = first[expectation]
        groups.append(RejectedRows(expectation, rows, place=example.place, reason=example.reason))
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Effort:
    """What an audit of all rows, beside so many `trusted` ones, would take on the processors of
    this machine; `seconds` is None where nothing tells the model's size.
    """

    model: str
    rows: int
    trusted: int
    cores: int
    gpu: bool
    seconds: float | None


def estimate_effort(config: AuditConfig, survey: Survey) -> Effort:
    """Judged by sizes and by the speed that this machine has now."""
    tokens, trusted = survey.tokens.audited, 0
    if config.reference is not None:
        most = config.reference_rows
        reference = survey_source(
            config.reference, config.stride.max_tokens, samples=0, most_rows=most
        )
        tokens += reference.tokens.audited
        trusted = reference.complete
    parameters = count_parameters(config.model.name)
    cores = os.cpu_count() or 1
    seconds = None
    if parameters is not None:
        seconds = estimate_seconds(tokens, parameters, measure_gflops(cores))
    return Effort(
        model=config.model.name,
        rows=survey.complete,
        trusted=trusted,
        cores=cores,
        gpu=has_gpu(),
        seconds=seconds,
    )


def list_advice(config: AuditConfig, survey: Survey, validated: Validated) -> list[str]:
    """What would help, a sentence each: a setting, or something to look at."""
    advice: list[str] = []
    within_reach = [each.name for each in survey.passed_over if each.may_hold_rows]
    if within_reach:
        advice.append(
            f"a trainer that is given the folder could read {name_some(within_reach)}: "
            "name the files to be read in `source`, or take the others out"
        )
    if survey.copies and config.validation.duplicates == "keep":
        advice.append("copies are released, too: validation.duplicates: drop keeps the first")
    if survey.tokens.overlong:
        advice.append(
            f"{plural(survey.tokens.overlong, 'row')} would be cut: a larger stride.max_tokens "
            f"({config.stride.max_tokens}) reads more of them, and takes longer"
        )
    failed = {group.expectation for group in validated.rejected}
    if any("role_problem" in expectation for expectation in failed):
        advice.append("validation.role_order: warn lets turns pass that are out of order")
    if any("value_lengths" in expectation for expectation in failed):
        advice.append("validation.max_characters says how long a prompt or an answer may be")
    return advice


def describe_survey(survey: Survey) -> dict[str, Any]:
    """A survey as plain JSON; the texts of its sample rows are whole, as they stand in the rows."""
    samples = []
    for sample in survey.samples:
        example = sample.example
        turns = [message.to_record() for message in example.messages]
        for turn, trained in zip(turns, list_trained(example), strict=True):
            turn["trained"] = trained
        record = {"place": sample.place, "messages": turns, "lowered": example.lowered}
        record["rejected"] = [message.to_record() for message in example.rejected]
        samples.append(record)
    return {
        "rows": survey.rows,
        "complete": survey.complete,
        "files": [asdict(file) for file in survey.files],
        "passed_over": [asdict(each) for each in survey.passed_over],
        "turns": dict(survey.turns),
        "kinds": dict(survey.kinds),
        "unread": [asdict(field) for field in survey.unread],
        "copies": survey.copies,
        "variants": survey.variants,
        "tokens": asdict(survey.tokens),
        "samples": samples,
    }
