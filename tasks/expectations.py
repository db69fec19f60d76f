"""The Great Expectations suite that rows must pass to be audited."""

import logging
import re
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from poisonwatch.config import ValidationConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Rejection
from poisonwatch.redaction import excerpt
from poisonwatch.sources import Rows

logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it tells of every temporary folder

CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
# Joiners and direction marks are part of some scripts and of emoji; between Latin letters they only hide something.
INVISIBLE = (
    r"[\u00ad\u180e\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    r"|(?<=[A-Za-z])[\u200c-\u200f]|[\u200c-\u200f](?=[A-Za-z])"
)
REPLACEMENT = "\ufffd"  # what broken Unicode turns into
SURROGATES = re.compile(r"[\ud800-\udfff]")
EXCERPT_CHARACTERS = 400


def suite(validation: ValidationConfig) -> gx.ExpectationSuite:
    """Every expectation with the reason that is given for a row that fails it, most basic first."""
    most = validation.max_characters
    asked: list[Any] = [
        gxe.ExpectColumnValuesToBeNull(column="problem", meta={"reason": "the row cannot be read"}),
        gxe.ExpectColumnValuesToBeNull(column="copy_of", meta={"reason": "a second copy of the same row"}),
    ]
    for column in ("prompt", "response"):
        asked += [
            gxe.ExpectColumnValuesToNotBeNull(column=column, meta={"reason": f"the {column} is missing or not text"}),
            gxe.ExpectColumnValuesToMatchRegex(column=column, regex=r"\S", meta={"reason": f"the {column} is empty"}),
            gxe.ExpectColumnValueLengthsToBeBetween(
                column=column, max_value=most, meta={"reason": f"the {column} is longer than {most} characters"}
            ),
            gxe.ExpectColumnValuesToNotMatchRegex(
                column=column, regex=REPLACEMENT, meta={"reason": f"the {column} is not valid Unicode (or was damaged before)"}
            ),
            gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=CONTROL, meta={"reason": f"the {column} has control characters"}),
            gxe.ExpectColumnValuesToNotMatchRegex(
                column=column, regex=INVISIBLE, meta={"reason": f"the {column} has invisible characters"}
            ),
        ]
    return gx.ExpectationSuite(name="fine-tuning rows", expectations=asked)


def check_rows(rows: Rows, validation: ValidationConfig) -> tuple[list[Example], list[Rejection]]:
    """Validate every row; return the examples that pass and the rejections, in order.

    Raises SourceError where a larger share than `max_rejected_share` fails, or nothing is left.
    """
    frame, examples = _frame(rows)
    failed = _failures(frame, validation)
    rejected = []
    for i, (row, draft) in enumerate(rows):
        if i in failed:
            expectation, reason = failed[i]
            text = " / ".join(text for _, text in draft.turns if text)
            detail = f": {draft.problem}" if draft.problem else ""
            rejected.append(
                Rejection(row.source, row.position, row.place, expectation, f"{reason}{detail}", excerpt(text, EXCERPT_CHARACTERS))
            )
    share = len(rejected) / len(rows)
    if share > validation.max_rejected_share or len(rejected) == len(rows):
        raise SourceError(
            f"{len(rejected)} of {len(rows)} rows ({share:.0%}) fail validation, more than validation.max_rejected_share "
            f"({validation.max_rejected_share:.0%}) allows; the first is {rejected[0].place}: {rejected[0].reason}"
        )
    return [example for i, example in enumerate(examples) if i not in failed and example is not None], rejected


def _frame(rows: Rows) -> tuple[pd.DataFrame, list[Example | None]]:
    examples: list[Example | None] = []
    records = []
    first: dict[str, int] = {}
    for i, (row, draft) in enumerate(rows):
        prompt, response = (None if text is None else SURROGATES.sub(REPLACEMENT, text) for text in (draft.text(False), draft.text(True)))
        complete = draft.problem is None and prompt is not None and response is not None
        example = draft.example(row, rows.used_fields(row.source)) if complete else None
        copy_of = None if example is None else first.setdefault(example.id, i)
        examples.append(example)
        # Problem rows would also fail for missing texts; the placeholder leaves the one reason that matters.
        texts = (prompt, response) if draft.problem is None else ("-", "-")
        records.append((i, draft.problem, *texts, None if copy_of == i else copy_of))
    columns = ["_row", "problem", "prompt", "response", "copy_of"]
    return pd.DataFrame(records, columns=columns, dtype=object), examples


def _failures(frame: pd.DataFrame, validation: ValidationConfig) -> dict[int, tuple[str, str]]:
    """The first expectation that each failing row failed: its name, and the reason in words."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    report = batch.validate(suite(validation), result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["_row"]})
    failed: dict[int, tuple[str, str]] = {}
    for result in report.results:
        asked = result.expectation_config
        if asked is None or asked.meta is None:
            raise RuntimeError("Great Expectations returned a result without its expectation")
        if result.exception_info.get("raised_exception"):
            raise RuntimeError(f"{asked.type} on {asked.kwargs['column']} could not be evaluated: {result.exception_info}")
        for index in result.result.get("unexpected_index_list") or []:
            failed.setdefault(int(index["_row"]), (f"{asked.type}({asked.kwargs['column']})", str(asked.meta["reason"])))
    return failed
