"""Bars on stderr while something long is at work. Light: commands that ask the ledger alone show
them, too.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from poisonwatch import interrupt
from poisonwatch.detached.progress_file import ProgressFile
from poisonwatch.flows.pace import Pace
from poisonwatch.text.durations import tell_duration

T = TypeVar("T")

# What passes are called for people, by the name that the library gives them, and what they count.
PASSES = {
    "pull": ("reading", "rows"),
    "basis": ("first look", "rows"),
    "trusted": ("trusted rows", "rows"),
    "sample": ("a sample of rows", "rows"),
    "survey": ("likeness of rows", "rows"),
    "check": ("finding faults", "rows"),
    "sentinels": ("sentinels", "answers"),
    "fit": ("all other rows", "rows"),
    "train": ("training", "steps"),
    "measure": ("operators", "operators"),
    "suspects": ("strongest rows again", "rows"),
    "rows": ("rows of groups", "rows"),
    "evidence": ("groups", "groups"),
    "audits": ("trial audits", "rows"),
    "directions": ("comparing rows", "rows"),
    "asking": ("asking the model", "groups"),
}


class Bars:
    """Shows bars; with `quiet`, none. With a `pace`, the time that is left is the whole audit's.

    How far the work is, is also written where the environment asks for it (`detached`).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.pace: Pace | None = None
        self.file = ProgressFile.from_environment()
        self.console = Console(stderr=True, quiet=quiet)

    def progress(
        self,
        items: Iterable[T],
        description: str,
        total: int | None,
        advance: Callable[[T], int] = lambda _: 1,
    ) -> Iterator[T]:
        """A bar with rate and time left while `items` pass through, `advance` of its units with
        each; none where nothing does. A `Progress` (poisonwatch/progress.py).
        """
        if total == 0:
            yield from items
            return
        words, unit = PASSES.get(description, (description, ""))
        columns = (
            TextColumn("  {task.description:<20}"),
            BarColumn(bar_width=None),
            _CountColumn(unit),
            _RateColumn(),
            _TimeColumn(description, self.pace),
        )
        started = time.perf_counter()
        with Progress(*columns, console=self.console, disable=self.quiet, expand=True) as bars:
            bar = bars.add_task(words, total=total)
            for item in items:
                # here, since a stage can last hours: an interrupt that was lost is not to wait for
                # its end
                interrupt.raise_if_interrupted()
                yield item
                bars.advance(bar, advance(item))
                self._write_pass(description, bars.tasks[0])
            if total is None:
                # what was counted is all there was
                bars.update(bar, total=bars.tasks[0].completed)
        if self.pace is not None and total is not None:
            self.pace.finish(description, total, time.perf_counter() - started)

    def _write_pass(self, label: str, task: Task) -> None:
        words, unit = PASSES.get(label, (label, ""))
        left = estimate_left(label, task, self.pace)
        is_whole = self.pace is not None and self.pace.knows(label)
        self.file.note_pass(words, unit, task.completed, task.total, left, is_whole)


def estimate_left(label: str, task: Task, pace: Pace | None) -> float | None:
    """Seconds that are left: of the whole audit where its pace knows the pass, else of the pass."""
    if pace is not None and task.total is not None:
        foreseen = pace.estimate_left(label, task.completed, task.total, task.elapsed or 0.0)
        if foreseen is not None:
            return foreseen
    return task.time_remaining


class _CountColumn(ProgressColumn):
    """How many of how many units are done."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        count = f"{int(task.completed):,}"
        if task.total is not None:
            total = f"{int(task.total):,}"
            count = f"{count:>{len(total)}} of {total}"
        return Text(f"{count} {self.unit}".rstrip())


class _RateColumn(ProgressColumn):
    """Units a second: the mean of a bar that has come to its end, else what it was lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        return Text(f"{speed:,.1f}/s" if speed < 100 else f"{speed:,.0f}/s")


class _TimeColumn(ProgressColumn):
    """About how long it still takes, and in the end how long it took."""

    def __init__(self, label: str, pace: Pace | None) -> None:
        super().__init__()
        self.label = label
        self.pace = pace

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(_tell(task.finished_time or task.elapsed or 0.0))
        left = estimate_left(self.label, task, self.pace)
        return Text("" if left is None else f"{_tell(left)} left")


def _tell(seconds: float) -> str:
    return tell_duration(timedelta(seconds=seconds))
