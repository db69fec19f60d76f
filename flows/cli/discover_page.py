"""What `discover` prints, for a terminal of 80 columns. Row text, and what the steered model says,
is shown as inert text.
"""

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from poisonwatch.discovery.described import DescribedGroup, FoundRow, Relation, Reply
from poisonwatch.examples import Example
from poisonwatch.flows.cli.flag_blocks import (
    ID_DIGITS,
    INDENT,
    LONGEST_PHRASE,
    LONGEST_PLACE,
    WORDS_SHOWN,
)
from poisonwatch.flows.cli.terminal import LABEL, WIDEST
from poisonwatch.flows.discover import DiscoveryOutcome
from poisonwatch.sentinels.adopting import Adoption
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.words import plural

ROWS_SHOWN, WEAK_ROWS_SHOWN = 5, 2  # of a group, and of one that did not pass
REPLIES_SHOWN = 2  # of a group, of each kind
SOURCES_SHOWN = 3
BELOW_INDENT = 2  # of a group within a stronger one, or around it


def print_discovery(outcome: DiscoveryOutcome, config: Path, as_json: bool) -> None:
    """The groups, those that stand out first, with what is said of each."""
    report = outcome.report
    if as_json:
        print(json.dumps(report.to_record() | {"run_dir": str(outcome.past.run_dir)}))
        return
    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    lines: list[str] = []
    weaker = False
    relations = report.relations
    for group, is_below in report.ordered:
        if not group.passed and not weaker:
            what = "no more than chance may make, the strongest first:"
            lines += [what if report.trusted else "not calibrated, the strongest first:", ""]
            weaker = True
        most = ROWS_SHOWN if group.passed else WEAK_ROWS_SHOWN
        shift = " " * BELOW_INDENT if is_below else ""
        inner = width - len(shift)
        described = _describe_group(
            group, relations.get(group.number), outcome.examples, inner, most, REPLIES_SHOWN
        )
        lines += [shift + line if line else "" for line in described]
    lines.append(f"{report.sentence}")
    beside = f"{plural(report.trusted, 'trusted row')}; {report.rule}"
    lines += _wrap("beside:", beside, width)
    if report.left_out:
        earlier = plural(report.left_out, "earlier audit")
        gone = "whose records are gone, or of another model"
        lines += _wrap("not looked:", f"at {earlier}, {gone}", width)
    for source, numbers in report.new_by_source.items():
        groups = ", ".join(map(str, numbers))
        what = "group" if len(numbers) == 1 else "groups"
        lines += _wrap("new:", f"{what} {groups} from {make_visible(source) or 'source'}", width)
    if report.groups:
        first = report.groups[0].number
        command = ["poisonwatch", "discover", str(config)]
        lines.append(f"{'next:':<{LABEL}}{shlex.join([*command, '--group', str(first)])}")
        lines.append(f"{'':<{LABEL}}{shlex.join([*command, '--guard', str(first)])}")
    _print_lines(console, lines)


def print_group(outcome: DiscoveryOutcome, number: int, config: Path, as_json: bool) -> None:
    """All rows of a group, and all that the model says. Raises InputError where there is none of
    that number.
    """
    group = outcome.report.get_group(number)
    relation = outcome.report.relations.get(number)
    if as_json:
        for row in group.rows:
            place = {"source": row.source, "position": row.position, "line": row.position + 1}
            print(json.dumps({"group": group.number, "example_id": row.example_id, **place}))
        return
    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    most = len(group.rows) + len(group.replies or ())
    lines = _describe_group(group, relation, outcome.examples, width, most, most)
    command = ["poisonwatch", "discover", str(config), "--group", str(number), "--json"]
    decide = ["poisonwatch", "decide", str(config), "--rows", "rows.jsonl", "--unflagged", "poison"]
    guard = ["poisonwatch", "discover", str(config), "--guard", str(number)]
    lines.append(f"{'guard it:':<{LABEL}}{shlex.join(guard)}")
    lines.append(f"{'decide:':<{LABEL}}{shlex.join(command)} > rows.jsonl")
    lines.append(f"{'':<{LABEL}}{shlex.join(decide)}")
    _print_lines(console, lines)


def print_draft(draft: Path, piece: str, config: Path, number: int) -> None:
    """Sentinels that are written to a file of their own, and how they come to the audit."""
    use = ["poisonwatch", "discover", str(config), "--guard", str(number), "--use", str(draft)]
    _print_lines(
        Console(highlight=False),
        [*piece.splitlines(), "", f"written to {draft}: change it, and then", shlex.join(use)],
    )


def print_adoption(made: Adoption, sentinels: Sequence[Sentinel], config: Path) -> None:
    """Sentinels that the next audit asks, and how that is taken back."""
    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    lines: list[str] = []
    for sentinel in sentinels:
        lines.append(f"{sentinel.id}: {excerpt(sentinel.prompt, width - len(sentinel.id) - 2)}")
        if sentinel.forbidden is not None:
            lines.append(f"  forbidden: {excerpt(sentinel.forbidden, width - LABEL)}")
        if sentinel.reference is not None:
            lines.append(f"  reference: {excerpt(sentinel.reference, width - LABEL)}")
    panel = sentinels[0].panel
    lines += [
        "",
        f"the next audit guards the panel {panel}: {plural(len(sentinels), 'sentinel')}",
        f"{'written:':<{LABEL}}{made.saved} (change what is not meant)",
        f"{'named in:':<{LABEL}}{made.audit_file}",
        *_wrap("undo:", made.undo, width),
        f"{'next:':<{LABEL}}{shlex.join(['poisonwatch', 'audit', str(config)])}",
    ]
    _print_lines(console, lines)


def _describe_group(
    group: DescribedGroup,
    relation: Relation | None,
    examples: Mapping[str, Example],
    width: int,
    most_rows: int,
    most_replies: int,
) -> list[str]:
    label = f"group {group.number}"
    q = f", q {group.q_value:.2g}" if group.trusted else ""
    beside = f", {relation.words}" if relation else ""
    count = plural(len(group.rows), "row")
    lines = [f"{label:<{INDENT}}{count}{beside}{q}; alike {group.strength:.2f}"]
    told = [group.unusual]
    if group.precedents is not None:
        told.append(group.precedents.words)
    told += list(_describe_words(group))
    told.append(f"from {_describe_sources(group.sources)}")
    for text in told:
        lines += textwrap.wrap(
            make_visible(text),
            width,
            initial_indent=" " * INDENT,
            subsequent_indent=" " * (INDENT + 2),
            break_on_hyphens=False,
        )
    for row in group.rows[:most_rows]:
        lines += _describe_row(row, examples.get(row.example_id), width)
    if len(group.rows) > most_rows:
        lines.append(f"  and {plural(len(group.rows) - most_rows, 'more row')}")
    lines += _describe_replies(group, width, most_replies)
    lines.append("")
    return lines


def _describe_row(row: FoundRow, example: Example | None, width: int) -> Iterator[str]:
    place = make_visible(f"{row.source}:{row.position + 1}")
    text = "its text could not be read again"
    if example is not None:
        text = f"{example.prompt} / {example.response}"
    if len(place) > LONGEST_PLACE:
        # whole, since `decide` takes it so
        yield f"  {place}"
        place = ""
    start = f"  {place}  {row.example_id[:ID_DIGITS]}  ".replace("    ", "  ", 1)
    yield start + excerpt(text, max(width - len(start), 10))


def _describe_words(group: DescribedGroup) -> Iterator[str]:
    for what, words in (("prompts", group.prompt_words), ("answers", group.answer_words)):
        if words:
            shown = [f"“{excerpt(text, LONGEST_PHRASE)}”" for text in words[:WORDS_SHOWN]]
            yield f"{what} share {', '.join(shown)}"


def _describe_sources(sources: Mapping[str, int]) -> str:
    named = [
        f"{excerpt(source) or 'source'} ({count})"
        for source, count in list(sources.items())[:SOURCES_SHOWN]
    ]
    left = len(sources) - len(named)
    if left > 0:
        named.append(plural(left, "more source"))
    return ", ".join(named)


def _describe_replies(group: DescribedGroup, width: int, most: int) -> Iterator[str]:
    if group.unsaid is not None:
        yield f"{'':<{INDENT}}not asked what the model says: {make_visible(group.unsaid)}"
    if not group.replies:
        return
    yield "  steered with it, the model says"
    for of_kind in (group.own_replies, group.neutral_replies):
        for reply in of_kind[:most]:
            yield from _describe_reply(reply, width)


def _describe_reply(reply: Reply, width: int) -> Iterator[str]:
    yield f"    {excerpt(reply.prompt, width - 4)}"
    yield f"      before: {excerpt(reply.before, width - 14)}"
    yield f"      after:  {excerpt(reply.after, width - 14)}"


def _wrap(label: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        make_visible(text),
        width,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        # Text, and not str: rich would read [bold] and the like in a str as its own markup.
        console.print(Text(make_visible(line)), soft_wrap=True)
