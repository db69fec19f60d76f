"""What `poisonwatch check` prints: what was read, sample rows with what is trained marked, and what
would come of an audit.

It fits 80 columns and needs no colours. Row text is hostile: all of it is made visible.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from poisonwatch.examples import Example, Message, count_shared_turns
from poisonwatch.flows.cli.check_steps import Effort, Validated
from poisonwatch.sources.survey import (
    SampleRow,
    Survey,
    describe_copies,
    describe_passed_over,
    list_trained,
    sum_formats,
)
from poisonwatch.sources.unread import describe_unread
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.durations import describe_seconds
from poisonwatch.text.words import plural

T = TypeVar("T")

WIDEST = 100
LABEL = 14  # columns of what stands before an entry
ROLE = 14  # columns of mark and role before a turn's text
FILES_SHOWN = 5
REJECTIONS_SHOWN = 8
# Of a turn's text as it is shown: its beginning and its end. More characters than fit into these
# lines are not even wrapped.
HEAD_LINES, TAIL_LINES = 5, 2
MOST_CHARACTERS = 1000

RAISED, LOWERED = "│", "┆"
STYLES = {RAISED: "bold green", LOWERED: "bold red", " ": ""}


class CheckPage:
    """Prints on stdout; what passes while one waits is on stderr. With `quiet`, nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(highlight=False, quiet=quiet)
        self.stderr = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
        self.width = min(self.console.width, WIDEST)

    def progress(
        self,
        items: Iterable[T],
        description: str,
        total: int | None,
        advance: Callable[[T], int] = lambda _: 1,
    ) -> Iterator[T]:
        """Rows so far, while a person looks on. A `Progress` (poisonwatch/progress.py)."""
        columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn()
        disable = self.stderr.quiet
        with Progress(*columns, console=self.stderr, transient=True, disable=disable) as bars:
            bar = bars.add_task(description, total=total)
            for item in items:
                yield item
                bars.advance(bar, advance(item))

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Shows that something is at work."""
        return self.stderr.status(text)

    def show_source(self, address: str, survey: Survey) -> None:
        """What was read, and how."""
        self._print(Text(make_visible(address), style="bold"))
        self._entry("rows", f"{survey.rows:,} in {_list_files(survey)}")
        if survey.passed_over:
            self._entry("passed over", describe_passed_over(survey.passed_over))
        for format in _list_formats(survey):
            self._entry("read as", format)
        for problem in survey.problems[:FILES_SHOWN]:
            self._entry("not read", problem, style="red")
        if survey.turns:
            self._entry("turns", _list_counts(survey.turns))
        if survey.kinds:
            self._entry("among them", _list_counts(survey.kinds))
        self._show_tokens(survey)
        if survey.unread:
            self._entry("unread fields", describe_unread(survey.unread))
        if survey.copies:
            self._entry("copies", describe_copies(survey.copies))
        if survey.variants:
            text = f"{_count_rows(survey.variants)} of what an earlier one says, in other bytes"
            self._entry("variants", text)

    def _show_tokens(self, survey: Survey) -> None:
        tokens = survey.tokens
        if not tokens.total:
            return
        text = f"about {_round(tokens.total)}, {_round(tokens.trained)} of them trained"
        text += f"; longest row {_round(tokens.longest)} ({tokens.longest_place})"
        if tokens.overlong:
            text += f"; {_count_rows(tokens.overlong)} too long to be audited whole"
        self._entry("tokens", text)

    def show_samples(self, samples: Sequence[SampleRow]) -> None:
        """Rows as a trainer sees them, a line for each turn; marks say what the loss is on."""
        if not samples:
            return
        self._print(Text(""))
        examples = [sample.example for sample in samples]
        self._print(Text("as a trainer sees them", style="bold"), _make_legend(examples))
        for sample in samples:
            self._print(Text(""))
            self._print(Text(f"  {excerpt(sample.place, self.width - 4)}", style="dim"))
            for mark, role, text in _list_turns(sample.example):
                self._show_turn(mark, role, text)

    def _show_turn(self, mark: str, role: str, text: str) -> None:
        for number, line in enumerate(self._cut_middle(text)):
            label = role if number == 0 else ""
            start = Text.assemble("  ", (mark, STYLES[mark]), f" {label:<{ROLE - 2}}")
            self._print(start, line)

    def _cut_middle(self, text: str) -> list[Text]:
        """A text in lines; of a long one the beginning and the end, and how much is between."""
        head, middle, tail = text.rstrip(), "", ""
        if not head:
            return [Text("[empty]", style="dim")]
        if len(head) > 2 * MOST_CHARACTERS:
            middle = head[MOST_CHARACTERS:-MOST_CHARACTERS]
            head, tail = head[:MOST_CHARACTERS], head[-MOST_CHARACTERS:]
        lines, last = self._wrap(head), self._wrap(tail)
        if not middle:
            lines, last = lines[:HEAD_LINES], lines[HEAD_LINES:]
        cut = [*lines[HEAD_LINES:], *last[:-TAIL_LINES]]
        left_out = len(middle) + sum(map(len, cut))
        if len(cut) < 2 and not middle:
            return [*lines, *last]
        note = Text(f"[… {left_out:,} characters …]", style="dim")
        return [*lines[:HEAD_LINES], note, *last[-TAIL_LINES:]]

    def _wrap(self, text: str) -> list[Text]:
        if not text:
            return []
        return list(Text(make_visible(text)).wrap(self.console, self.width - ROLE - 2, tab_size=4))

    def show_validation(self, survey: Survey, validated: Validated) -> None:
        """What would be rejected, and why."""
        self._print(Text(""))
        if not validated.checked:
            return
        of = _count_rows(validated.checked)
        if validated.checked < survey.rows:
            of = f"the first {of}"
        rejected = sum(group.rows for group in validated.rejected)
        self._entry("validation", f"{rejected:,} of {of} would be rejected")
        for group in validated.rejected[:REJECTIONS_SHOWN]:
            reason, place = excerpt(group.reason, 200), excerpt(group.place, 80)
            self._entry("", f"{_count_rows(group.rows)}, the first {place}: {reason}")
        for warning in validated.warnings:
            self._entry("warning", warning, style="yellow")

    def show_effort(self, effort: Effort) -> None:
        """About what an audit would take."""
        self._entry("an audit", describe_effort(effort))

    def show_advice(self, advice: Sequence[str]) -> None:
        """What would help."""
        if not advice:
            return
        self._print(Text(""))
        for number, sentence in enumerate(advice):
            label = "what helps" if number == 0 else ""
            self._entry(label, sentence, style="yellow")

    def _entry(self, label: str, text: str, style: str = "dim") -> None:
        """A label, and beside it a text of one or more lines."""
        lines = Text(make_visible(text)).wrap(self.console, self.width - LABEL - 2)
        for number, line in enumerate(lines):
            shown = label if number == 0 else ""
            self._print(Text(f"  {shown:<{LABEL}}", style=style), line)

    def _print(self, *parts: Text) -> None:
        # Text, and not str: rich would read [bold] and the like in a str as its own markup.
        line = Text.assemble(*parts)
        line.rstrip()
        self.console.print(line, soft_wrap=True)


def describe_effort(effort: Effort) -> str:
    """About what an audit would take, and how sure that is."""
    model = effort.model.rpartition("/")[2]
    if effort.seconds is None:
        return f"nothing tells the size of {model}: how long it takes is not known"
    rows = _count_rows(effort.rows)
    if effort.trusted:
        rows += f" and {effort.trusted:,} trusted ones"
    cores = plural(effort.cores, "core")
    text = f"about {describe_seconds(effort.seconds)} for {rows}, with {model} on {cores}"
    text += " that do nothing else"
    if effort.gpu:
        text += "; a GPU takes a small part of that"
    return f"{text} (an estimate, right within a factor of two or three)"


def _list_turns(example: Example) -> Iterator[tuple[str, str, str]]:
    """Mark, role and text of each turn; after them the rejected answer of a preference row."""
    raised = RAISED
    if example.lowered:
        raised = LOWERED
    for message, trained in zip(example.messages, list_trained(example), strict=True):
        yield (raised if trained else " "), _name_role(message), message.content
    for message in example.rejected[count_shared_turns(example.messages, example.rejected) :]:
        if message.role == "assistant":
            yield LOWERED, "rejected", message.content
        else:
            yield " ", _name_role(message), message.content


def _name_role(message: Message) -> str:
    if message.masked:
        return f"({message.role})"
    return message.role


def _make_legend(examples: Sequence[Example]) -> Text:
    """What the marks mean that these rows have."""
    marks: set[str] = set()
    masked = False
    for example in examples:
        marks.update(mark for mark, _, _ in _list_turns(example))
        masked = masked or any(message.masked for message in example.messages)
    said = []
    if RAISED in marks:
        said.append(f"{RAISED} trained")
    if LOWERED in marks:
        said.append(f"{LOWERED} trained against")
    if masked:
        said.append("( ) not trained")
    return Text("   " + "   ".join(said), style="dim")


def _list_files(survey: Survey) -> str:
    if len(survey.files) == 1:
        return survey.files[0].name
    shown = []
    for file in survey.files[:FILES_SHOWN]:
        shown.append(f"{file.name} ({file.rows:,})")
    text = f"{plural(len(survey.files), 'file')}: {', '.join(shown)}"
    if len(survey.files) > FILES_SHOWN:
        text += f" and {len(survey.files) - FILES_SHOWN} more"
    return text


def _list_formats(survey: Survey) -> list[str]:
    """Each format in words; where there are several, with the files that have it."""
    formats = {file.name: file.format for file in survey.files if file.format is not None}
    summed = sum_formats(formats)
    if len(summed) == 1:
        return [summed[0][0]]
    return [f"{format} ({files})" for format, files in summed]


def _count_rows(count: int) -> str:
    if count == 1:
        return "1 row"
    return f"{count:,} rows"


def _round(count: int) -> str:
    """A count of which two digits are known."""
    beyond = max(len(str(count)) - 2, 0)
    return f"{round(count, -beyond):,}"


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
