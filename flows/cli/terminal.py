"""What a person sees in the terminal: progress on stderr, results on stdout."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from poisonwatch.detection.significance import LEAST_TRUSTED
from poisonwatch.flags import flagged_example
from poisonwatch.flows import interrupt
from poisonwatch.ledger.intake import Taken
from poisonwatch.sentinels.checks import Problem
from poisonwatch.text.display import excerpt, visible
from poisonwatch.validation import Validation

T = TypeVar("T")
ROWS_SHOWN = 30
SHORT = {"forbidden": "towards forbidden", "margin": "away from reference", "reference": "moves reference"}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} rows/s", style="progress.data.speed")


class Reporter:
    """Shows where the audit is; with `quiet`, nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)

    def progress(self, items: Iterable[T], description: str, total: int | None, advance: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
        """A bar with rate and time left while `items` pass through; none where nothing does."""
        if total == 0:
            yield from items
            return
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, disable=self.quiet) as bars:
            bar = bars.add_task(description, total=total)
            for item in items:
                interrupt.heed()
                yield item
                bars.advance(bar, advance(item))

    def note(self, text: str) -> None:
        """One line on stderr."""
        self.console.print(Text(visible(text)), soft_wrap=True)

    def waiting(self) -> None:
        """A line on stderr while another audit works on the same ledger."""
        self.note("another audit is at work on this ledger: waiting for it to end ...")

    def rows(self, taken: Taken, chosen: int, valid: Validation, reference: Validation) -> None:
        """What was pulled, how it was read, and what there is to audit."""
        for name, format in taken.formats.items():
            self.note(f"{name}: read as {format}")
        unchanged = f", {taken.unchanged} of {taken.files} files unchanged" if taken.unchanged else ""
        self.note(f"{taken.read} rows read, {taken.new} never seen before{unchanged}; {chosen} to audit")
        for warning in valid.warnings:
            self.note(f"validation: {warning}")
        if chosen:
            self.trusted(reference)

    def trusted(self, reference: Validation) -> None:
        """A line on stderr where trusted rows were rejected, and where those that are left are too few to judge others against."""
        count = len(reference.examples)
        if reference.rejected:
            self.note(f"{len(reference.rejected)} trusted rows failed validation and are left out")
        if 0 < count < LEAST_TRUSTED:
            self.note(
                f"{count} trusted rows are too few to stand alone ({LEAST_TRUSTED} are needed): rows are judged against the bulk of all"
            )

    def problems(self, problems: Iterable[Problem]) -> None:
        """A line on stderr for each sentinel that cannot tell anything."""
        for problem in problems:
            self.note(f"sentinel {problem.sentinel_id}: {problem.problem}")


def print_summary(summary: Mapping[str, Any], run_dir: str) -> None:
    """The audit as one JSON object."""
    print(json.dumps({**summary, "run_dir": run_dir}))


def print_outcome(outcome: Any) -> None:
    """Settings, counts, and the flagged rows with their reasons. Row text is shown as inert text."""
    console = Console(highlight=False)
    summary, flags = outcome.summary, outcome.flags
    counts, settings = summary["counts"], summary["settings"]
    if flags:
        console.print(_flag_table(flags[:ROWS_SHOWN], console.width))
    if len(flags) > ROWS_SHOWN:
        console.print(Text(f"... and {len(flags) - ROWS_SHOWN} more in flags.jsonl"))
    if not settings:
        console.print(Text(visible(f"nothing to audit: no row is new; {outcome.run_dir / 'summary.json'}")), soft_wrap=True)
        return
    alone, seconds = summary["recovery"]["measured_alone"], sum(stage["seconds"] for stage in summary["stages"])
    derived = ", ".join(f"{name} {settings[name]}" for name in ("layer", "r", "K", "d", "n"))
    lines = [
        f"{counts['flagged']} of {counts['new']} new rows flagged at a false-discovery rate of {summary['false_discovery_rate']:g}"
        f" ({counts['reference']} trusted rows to compare with, {counts['rejected']} rejected)",
        f"attribution: {derived}, {alone} rows measured alone; {seconds:.0f} s",
        f"report:      {outcome.run_dir / 'report.html'}",
    ]
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=True)


def print_explained(rows: Any, n: int, as_json: bool) -> None:
    """The rows behind an answer, strongest first."""
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    console = Console(highlight=False)
    table = Table(title=f"of {n} rows, those that make the answer likelier", title_justify="left")
    for name in ("rank", "coefficient", "score", "source, row", "example"):
        table.add_column(name, justify="right" if name in ("rank", "coefficient", "score") else "left", overflow="fold")
    for row in rows:
        place = "trusted row" if row.source is None else f"{row.source}, {row.position}"
        table.add_row(*map(Text, (str(row.rank), f"{row.coefficient:.2f}", f"{row.score:.1f}", visible(place), row.example_id[:16])))
    console.print(table)


def print_drill(outcome: Any) -> None:
    """How much of each attack was found, as a table and in a sentence a recipe."""
    console = Console(highlight=False)
    table = Table(title=f"planted into {outcome.drill.clean} clean rows", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("recipe", "rows", "found", "95 %", "flagged", "attributed", "false/1,000"):
        table.add_column(name, justify="left" if name == "recipe" else "right", no_wrap=True)
    for power in outcome.drill.powers:
        low, high = power.interval
        shares = f"{power.recall:.0%}", f"{power.recall_by_attribution:.0%}", f"{power.false_flags:.1f}"
        found = f"{power.found} of {power.repeats}", f"{low:.2f}-{high:.2f}"
        table.add_row(*map(Text, (power.recipe, str(power.count), *found, *shares)))
    console.print(table)
    notes = (f"note: {note}" for note in outcome.drill.notes)
    for line in (*(power.sentence for power in outcome.drill.headline), *notes, f"results:     {outcome.run_dir / 'drill.json'}"):
        console.print(Text(visible(line)), soft_wrap=True)


def _why(flag: Mapping[str, Any]) -> str:
    pushed = [f"rank {flag['rank']}, {SHORT[flag['kind']]}, most on {flag['sentinel_id']}"] if "stride" in flag["by"] else []
    return "; ".join([*pushed, *(f"screen {name}" for name in flag["by"] if name != "stride")])


def _flag_table(flags: Iterable[Mapping[str, Any]], width: int) -> Table:
    """Lines of flags.jsonl."""
    table = Table(show_lines=False, expand=width < 120, title_justify="left")
    for name in ("source, row", "panel", "score", "q", "why", "text"):
        wide = name in ("why", "text")
        table.add_column(
            name,
            justify="right" if name in ("score", "q") else "left",
            overflow="fold",
            ratio=2 if wide else None,
            min_width=14 if wide else None,
            max_width=None if wide else 18,
        )
    for flag in flags:
        example = flagged_example(flag)
        cells = (
            f"{example.source}, {example.position}",
            flag["panel"],
            f"{flag['score']:.1f}",
            f"{flag['q_value']:.2g}",
            _why(flag),
            excerpt(f"{example.prompt} / {example.response}", 70),
        )
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table
