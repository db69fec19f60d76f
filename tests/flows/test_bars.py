"""What a person sees while something long is at work."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from poisonwatch.flows.bars import Bars, _TimeColumn
from poisonwatch.flows.pace import Pace, Pass


def show(label: str, total: int | None) -> list[str]:
    """All that is drawn, on a terminal of 80 columns, while 160 units pass."""
    bars = Bars()
    drawn = io.StringIO()
    bars.console = Console(file=drawn, force_terminal=True, width=80, color_system=None)
    for _ in bars.progress(range(4), label, total, lambda _: 40):
        pass
    lines = [line.partition("  ")[2] for line in drawn.getvalue().replace("\r", "\n").splitlines()]
    return [line for line in lines if "━" in line]


@pytest.mark.parametrize(
    ("label", "words", "unit"),
    [("fit", "all other rows", "rows"), ("evidence", "groups", "groups"), ("else", "else", "")],
)
def test_a_bar_counts_what_passes_in_its_own_unit(label: str, words: str, unit: str) -> None:
    """In words, up to the total; nothing is unknown for ever, and nothing wider than it may be."""
    lines = show(label, 160)
    assert lines[-1].startswith(words)
    assert f"160 of 160 {unit}".rstrip() in lines[-1]
    assert not [line for line in lines if "-:--:--" in line or "?" in line]
    assert max(map(len, lines)) <= 78


def test_what_nobody_counted_before_is_counted_at_its_end() -> None:
    """A source says how many rows it has once it was read."""
    assert "160 of 160 rows" in show("pull", None)[-1]


def test_the_time_left_is_that_of_the_whole_audit() -> None:
    """From the first moment, where it was foreseen; of a pass that was not, nothing, until it has a
    speed.
    """
    pace = Pace([Pass("fit", 160, 60.0), Pass("suspects", 1, 3600.0)])
    with Progress(disable=True) as drawn:
        drawn.add_task("", total=160)
        (task,) = drawn.tasks
        assert _TimeColumn("fit", pace).render(task).plain == "1 h 1 min left"
        assert _TimeColumn("evidence", Pace([])).render(task).plain == ""
        assert _TimeColumn("fit", None).render(task).plain == ""
        drawn.update(task.id, completed=160)
        assert _TimeColumn("fit", pace).render(task).plain == "0 s"


def test_where_nothing_is_to_be_done_no_bar_is_shown() -> None:
    """Whoever resumes may find a pass done."""
    bars = Bars()
    assert list(bars.progress([1, 2], "fit", 0)) == [1, 2]
