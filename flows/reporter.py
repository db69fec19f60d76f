"""What a person sees while an audit is at work: progress and notes, on stderr.

Results are on stdout, where another program may read them (`flows/cli/terminal.py`).
"""

from collections.abc import Iterable, Sequence

from rich.text import Text

from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.flows.bars import Bars
from poisonwatch.flows.stages import STAGES, Stages, describe_stage, find_stage
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.sentinels.sentinel import SentinelProblem
from poisonwatch.sources.survey import describe_copies, describe_passed_over, sum_formats
from poisonwatch.sources.unread import UnreadField, describe_unread
from poisonwatch.text.display import make_visible
from poisonwatch.text.redaction import redact_url
from poisonwatch.text.words import plural
from poisonwatch.validation import Validation


class Reporter(Bars):
    """Shows where the audit is; with `quiet`, nothing."""

    def __init__(self, quiet: bool = False, stages: Stages = STAGES) -> None:
        super().__init__(quiet)
        self.stages = stages
        self.stage: str | None = None

    def enter_task(self, task: str) -> None:
        """A line on stderr where a task begins a stage."""
        stage, found = describe_stage(task, self.stages), find_stage(task, self.stages)
        if found is not None and stage is not None and stage != self.stage:
            self.stage = stage
            self.file.enter_stage(found[0], len(self.stages), found[1])
            self.console.print(Text(stage, style="bold"))

    def note(self, text: str) -> None:
        """One line on stderr."""
        # Text, and not str: rich would read [bold] and the like in a str as its own markup
        self.console.print(Text(make_visible(redact_url(text))), soft_wrap=True)

    def note_waiting(self) -> None:
        """A line on stderr while another audit of the same name is at work."""
        self.note("another audit of this name is at work on the ledger: waiting for it to end ...")

    def note_rows(
        self,
        ingested: IngestStats,
        chosen: int,
        valid: Validation,
        reference: Validation,
        unread: Sequence[UnreadField] = (),
    ) -> None:
        """What was pulled, how it was read and what was left over, and what there is to audit."""
        self.note_source(ingested, unread)
        seen = f"{plural(ingested.read, 'row')} read, {ingested.new} never seen before"
        if ingested.unchanged:
            seen += f", {ingested.unchanged} of {plural(ingested.files, 'file')} unchanged"
        self.note(f"{seen}; {chosen} to audit")
        for warning in valid.warnings:
            self.note(f"validation: {warning}")
        # with nothing to audit, nobody is compared with trusted rows
        if chosen:
            self.note_trusted(reference)

    def note_source(self, ingested: IngestStats, unread: Sequence[UnreadField]) -> None:
        """How the files that were opened are read, what of the rows is not read, and what beside
        them was passed over.
        """
        for format, files in sum_formats(ingested.formats):
            self.note(f"{files}: read as {format}")
        if unread:
            self.note(f"unread fields: {describe_unread(unread)}")
        if ingested.passed_over:
            self.note(f"passed over: {describe_passed_over(ingested.passed_over)}")
        if ingested.copies:
            self.note(describe_copies(ingested.copies))

    def note_trusted(self, reference: Validation) -> None:
        """A line on stderr where trusted rows were rejected, and where those that are left are too
        few to judge others against.
        """
        count = len(reference.examples)
        if reference.rejected:
            self.note(f"{len(reference.rejected)} trusted rows failed validation and are left out")
        if 0 < count < LEAST_TRUSTED:
            self.note(
                f"{count} trusted rows are too few to stand alone ({LEAST_TRUSTED} are needed): "
                "rows are judged against the bulk of all"
            )

    def note_problems(self, problems: Iterable[SentinelProblem]) -> None:
        """A line on stderr for each sentinel that cannot tell anything."""
        for problem in problems:
            self.note(f"sentinel {problem.sentinel_id}: {problem.problem}")
