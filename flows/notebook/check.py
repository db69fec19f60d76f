"""`pw.check(rows)`: how rows are understood, before anything is audited. No model is loaded."""

import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from poisonwatch.config_file import resolve_config
from poisonwatch.flows.cli.check_steps import Validated, list_advice, validate
from poisonwatch.flows.notebook.rows import GivenRows, Rows, take_rows, write_rows
from poisonwatch.flows.reporter import Reporter
from poisonwatch.sources.survey import Survey, sum_formats, survey_source
from poisonwatch.text.words import plural

SAMPLES = 3


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What rows are read as: `survey` has the counts, `validated` what an audit would reject, and
    `advice` what would help, a sentence each.
    """

    survey: Survey
    validated: Validated
    advice: tuple[str, ...]

    @property
    def formats(self) -> list[str]:
        """In words, how rows are read."""
        read = {file.name: file.format for file in self.survey.files if file.format is not None}
        return [format for format, _ in sum_formats(read)]

    @property
    def turns(self) -> pd.DataFrame:
        """Turns of a few rows as a trainer would see them."""
        lines: list[dict[str, Any]] = []
        for sample in self.survey.samples:
            for message in sample.example.messages:
                lines.append({"row": sample.place, "role": message.role, "text": message.content})
        return pd.DataFrame(lines, columns=["row", "role", "text"])

    @property
    def rejected(self) -> pd.DataFrame:
        """Rows that an audit would reject, by the expectation that they fail."""
        groups = self.validated.rejected
        lines = [(group.expectation, group.rows, group.place, group.reason) for group in groups]
        return pd.DataFrame(lines, columns=["expectation", "rows", "first", "reason"])

    @property
    def problems(self) -> list[str]:
        """What would stop an audit, and what it would warn of."""
        refusal = [] if self.validated.refusal is None else [self.validated.refusal]
        return [*refusal, *self.validated.warnings]

    def __repr__(self) -> str:
        return f"<CheckResult: {self._describe()}>"

    def _repr_html_(self) -> str:
        """For notebooks; rows' text as inert text."""
        lines = [self._describe(), *self.problems, *self.advice]
        paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines)
        return paragraphs + self.turns.to_html(escape=True, index=False)

    def _describe(self) -> str:
        rejected = sum(group.rows for group in self.validated.rejected)
        formats = "; ".join(self.formats) or "nothing that is known"
        return f"{plural(self.survey.rows, 'row')}, read as {formats}; {rejected} would be rejected"


def check(rows: Rows, *, progress: bool = True, **source: Any) -> CheckResult:
    """Read rows and say how they are understood: format, roles, what is left over, what would be
    rejected.

        pw.check(frame, fields={"prompt": "question", "response": "answer"})

    `rows` as for `audit`; further settings are those of `source` in an audit file. Raises
    InputError for rows of another type, ConfigError for such settings, SourceError where the source
    cannot be found.
    """
    with tempfile.TemporaryDirectory(prefix="poisonwatch-") as folder:
        given = take_rows(rows, "rows")
        if isinstance(given, GivenRows):
            file = Path(folder) / "rows.jsonl"
            write_rows(given, file)
            given = {"path": str(file)}
        # An audit needs sentinels; nothing here asks any.
        settings = {"source": given | source, "sentinels": ["pack:refusal-erosion"]}
        config = resolve_config(settings, Path(folder), "source")
        shown = Reporter(quiet=not progress)
        survey = survey_source(config.source, config.stride.max_tokens, SAMPLES, shown.progress)
        validated = validate(config, survey)
        advice = list_advice(config, survey, validated)
    return CheckResult(survey, validated, tuple(advice))
