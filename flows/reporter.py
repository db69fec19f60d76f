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
from poisonwatch.text.words import plural, wrap_words
from poisonwatch.validation import Validation

WIDEST = 100  # columns: longer lines are hard to read
INDENT = 2  # of what goes on in a second line


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

    def say(self, text: str) -> None:
        """What an audit tells of itself, on stderr: in lines as wide as the terminal, or 80 columns
        where there is none, with whole words and paths.
        """
        told = make_visible(redact_url(text))
        for line in wrap_words(told, min(self.console.width, WIDEST), indent=INDENT):
            self.console.print(Text(line), soft_wrap=True)

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
        self.say(f"{seen}; {chosen} to audit")
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
            self.say(f"{files}: read as {format}")
        if unread:
            self.say(f"unread fields: {describe_unread(unread)}")
        if ingested.passed_over:
            self.say(f"passed over: {describe_passed_over(ingested.passed_over)}")
        if ingested.copies:
            self.say(describe_copies(ingested.copies))

    def note_trusted(self, reference: Validation) -> None:
        """A line on stderr where trusted rows were rejected, and where those that are left are too
        few to judge others against.
        """
        count = len(reference.examples)
        if reference.rejected:
            rejected = plural(len(reference.rejected), "trusted row")
            left_out = "is left out" if len(reference.rejected) == 1 else "are left out"
            self.say(f"{rejected} failed validation and {left_out}")
        if 0 < count < LEAST_TRUSTED:
            few = "is" if count == 1 else "are"
            rows = plural(count, "trusted row")
            self.say(
                f"{rows} {few} too few to stand alone ({LEAST_TRUSTED} are needed): "
                "rows are judged against the bulk of all"
            )

    def note_problems(self, problems: Iterable[SentinelProblem]) -> None:
        """A line on stderr for each sentinel that cannot tell anything."""
        for problem in problems:
            self.note(f"sentinel {problem.sentinel_id}: {problem.problem}")
