from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from poisonwatch.detection.significance import LEAST_TRUSTED
from poisonwatch.flows import interrupt
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.sentinels.checks import SentinelProblem
from poisonwatch.text.display import make_visible
from poisonwatch.validation import Validation

T = TypeVar("T")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} rows/s", style="progress.data.speed")


class Reporter:
    """Shows where the audit is; with `quiet`, nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)

    def progress(
        self,
        items: Iterable[T],
        description: str,
        total: int | None,
        advance: Callable[[T], int] = lambda _: 1,
    ) -> Iterator[T]:
        """A bar with rate and time left while `items` pass through; none where nothing does."""
        if total == 0:
            yield from items
            return
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, disable=self.quiet) as bars:
            bar = bars.add_task(description, total=total)
            for item in items:
                interrupt.raise_if_interrupted()
                yield item
                bars.advance(bar, advance(item))

    def note(self, text: str) -> None:
        """One line on stderr."""
        self.console.print(Text(make_visible(text)), soft_wrap=True)

    def note_waiting(self) -> None:
        """A line on stderr while another audit works on the same ledger."""
        self.note("another audit is at work on this ledger: waiting for it to end ...")

    def rows(
        self, taken: IngestStats, chosen: int, valid: Validation, reference: Validation
    ) -> None:
        """What was pulled, how it was read, and what there is to audit."""
        for name, format in taken.formats.items():
            self.note(f"{name}: read as {format}")
        unchanged = (
            f", {taken.unchanged} of {taken.files} files unchanged" if taken.unchanged else ""
        )
        self.note(
            f"{taken.read} rows read, {taken.new} never seen before{unchanged}; {chosen} to audit"
        )
        for warning in valid.warnings:
            self.note(f"validation: {warning}")
        if chosen:
            self.trusted(reference)

    def trusted(self, reference: Validation) -> None:
        """A line on stderr where trusted rows were rejected, and where those that are left are too
        few to judge others against.
        """
        count = len(reference.examples)
        if reference.rejected:
            self.note(f"{len(reference.rejected)} trusted rows failed validation and are left out")
        if 0 < count < LEAST_TRUSTED:
            self.note(
                f"{count} trusted rows are too few to stand alone ({LEAST_TRUSTED} are needed): rows are judged against the bulk of all"
            )

    def problems(self, problems: Iterable[SentinelProblem]) -> None:
        """A line on stderr for each sentinel that cannot tell anything."""
        for problem in problems:
            self.note(f"sentinel {problem.sentinel_id}: {problem.problem}")
