"""Bars on stderr while something long is at work. Light: commands that ask the ledger alone show
them, too.
"""

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

from poisonwatch.flows import interrupt

T = TypeVar("T")


class _RateColumn(ProgressColumn):
    """Rows a second: the mean of a bar that has come to its end, else what it was lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        return Text(f"{speed:.1f} rows/s", style="progress.data.speed")


class Bars:
    """Shows bars; with `quiet`, none."""

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
        """A bar with rate and time left while `items` pass through, `advance` rows with each; none
        where nothing does. A `Progress` (poisonwatch/progress.py).
        """
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
                # here, since a stage can last hours: an interrupt that was lost is not to wait for
                # its end
                interrupt.raise_if_interrupted()
                yield item
                bars.advance(bar, advance(item))
