"""Results of commands on stdout: of an audit, of a question, of a drill. What a person sees while
these are at work is in `flows/reporter.py`, on stderr.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonwatch.failures import tell_failures
from poisonwatch.flags import LOWERED, read_flagged_example
from poisonwatch.ledger.mutes import tell_held_back
from poisonwatch.reports.new_topics import tell_new_topics
from poisonwatch.screens.finding import NEW_TOPIC
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.words import plural

ROWS_SHOWN = 30
# The three ways in which a row can push a sentinel, by the `kind` of a flag.
PUSH_LABELS = {
    "forbidden": "towards forbidden",
    "margin": "away from reference",
    "reference": "moves reference",
}


def print_summary(summary: Mapping[str, Any], run_dir: str) -> None:
    """The audit as one JSON object; its `run_dir` is null where it left none."""
    left = None if summary.get("nothing_new") else run_dir
    print(json.dumps({**summary, "run_dir": left}))


def print_outcome(outcome: Any) -> None:
    """Settings, counts, and the flagged rows with their reasons, of an `AuditOutcome`. Row text is
    shown as inert text.
    """
    console = Console(highlight=False)
    flags, folder = outcome.flags, outcome.run_dir
    if flags:
        console.print(_build_flag_table(flags[:ROWS_SHOWN], console.width))
    if len(flags) > ROWS_SHOWN:
        console.print(Text(f"... and {len(flags) - ROWS_SHOWN} more in flags.jsonl"))
    if outcome.summary["settings"]:
        lines = _describe_audit(outcome.summary, folder)
    else:
        # settings are derived from the rows: where none was new, there are none
        nothing = "nothing to audit: no row is new"
        in_ledger_alone = outcome.summary.get("nothing_new")
        lines = [nothing if in_ledger_alone else f"{nothing}; {folder / 'summary.json'}"]
    _print_lines(console, lines)


def _describe_audit(summary: Mapping[str, Any], folder: Path) -> list[str]:
    """What stands below the table of flags."""
    counts, settings = summary["counts"], summary["settings"]
    flagged = f"{counts['flagged']} of {counts['new']} new rows flagged"
    rate = f"{summary['false_discovery_rate']:g}"
    beside = f"{counts['reference']} trusted rows to compare with, {counts['rejected']} rejected"
    derived = ", ".join(f"{name} {settings[name]}" for name in ("layer", "r", "K", "d", "n"))
    alone = summary["recovery"]["measured_alone"]
    seconds = sum(stage["seconds"] for stage in summary["stages"])
    return [
        f"{flagged} at a false-discovery rate of {rate} ({beside})",
        f"attribution: {derived}, {alone} rows measured alone; {seconds:.0f} s",
        *tell_new_topics(summary),
        *_describe_failures(summary),
        *tell_held_back(summary),
        f"report:      {folder / 'report.html'}",
    ]


def _describe_failures(summary: Mapping[str, Any]) -> list[str]:
    """That parts of the audit failed, where any did. Which they are is said on stderr, where it is
    seen though results go into a file.
    """
    failures = tell_failures(summary)
    if not failures:
        return []
    return [f"incomplete:  {plural(len(failures), 'part')} failed, and no flag depends on them"]


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        # Text, and not str: rich would read [bold] and the like in a str as its own markup.
        # soft_wrap: a path that is cut into two lines could not be clicked or copied.
        console.print(Text(make_visible(line)), soft_wrap=True)


def print_explanation(rows: Any, n: int, as_json: bool, exactness: str = "") -> None:
    """The rows behind an answer (`ExplainedRow`s, of `n` in all), strongest first, and a line on
    which of their numbers are exact.
    """
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    console = Console(highlight=False)
    table = Table(title=f"of {n} rows, those that make the answer likelier", title_justify="left")
    for name in ("rank", "coefficient", "score"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("source, row", "example"):
        table.add_column(name, overflow="fold")
    for row in rows:
        place = "trusted row" if row.source is None else f"{row.source}, {row.position}"
        numbers = (str(row.rank), f"{row.coefficient:.2f}", f"{row.score:.1f}")
        table.add_row(*map(Text, (*numbers, make_visible(place), row.example_id[:16])))
    console.print(table)
    if exactness:
        console.print(exactness)


def print_drill(outcome: Any) -> None:
    """How much of each attack was found, as a table and in a sentence a recipe, of a
    `DrillOutcome`.
    """
    console = Console(highlight=False)
    drill = outcome.drill
    table = Table(
        title=f"planted into {drill.clean} clean rows; +: with the pack against the attack added",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("recipe", no_wrap=True)
    for name in ("rows", "found", "95 %", "flagged", "attributed", "false/1,000"):
        table.add_column(name, justify="right", no_wrap=True)
    for power in drill.powers:
        low, high = power.interval
        cells = (
            f"+ {power.pack_name}" if power.with_pack else power.recipe,
            str(power.count),
            f"{power.found} of {power.repeats}",
            f"{low:.2f}-{high:.2f}",
            f"{power.recall:.0%}",
            f"{power.recall_by_attribution:.0%}",
            f"{power.false_flags:.1f}",
        )
        table.add_row(*map(Text, cells))
    console.print(table)
    _print_lines(console, [power.sentence for power in drill.headline])
    _print_lines(console, [f"note: {note}" for note in drill.notes])
    _print_lines(console, [f"results:     {outcome.run_dir / 'drill.json'}"])


def _describe_reasons(flag: Mapping[str, Any]) -> str:
    """Why a row was flagged, the attribution before what else found it."""
    reasons = []
    if "stride" in flag["by"]:
        push = PUSH_LABELS[flag["kind"]]
        reasons.append(f"rank {flag['rank']}, {push}, most on {flag['sentinel_id']}")
    for name in flag["by"]:
        if name == NEW_TOPIC:
            reasons.append("new topic, held back")
        elif name != "stride":
            reasons.append(f"screen {name}")
    return "; ".join(reasons)


def _build_flag_table(flags: Iterable[Mapping[str, Any]], width: int) -> Table:
    """A table of lines of flags.jsonl, for a terminal of `width` columns."""
    # Below 120 columns the table takes all of them, since the two wide columns need each.
    table = Table(show_lines=False, expand=width < 120, title_justify="left")
    table.add_column("source, row", overflow="fold", max_width=18)
    table.add_column("panel", overflow="fold", max_width=18)
    table.add_column("score", justify="right", overflow="fold", max_width=18)
    table.add_column("q", justify="right", overflow="fold", max_width=18)
    table.add_column("why", overflow="fold", ratio=2, min_width=14)
    table.add_column("text", overflow="fold", ratio=2, min_width=14)
    for flag in flags:
        example = read_flagged_example(flag)
        text = excerpt(f"{example.prompt} / {example.response}", 70)
        if example.lowered:
            text = f"{text} ({LOWERED})"
        cells = (
            f"{example.source}, {example.position}",
            flag["panel"],
            f"{flag['score']:.1f}",
            f"{flag['q_value']:.2g}",
            _describe_reasons(flag),
            text,
        )
        # rows are hostile: neither their markup nor their escapes may reach the terminal
        table.add_row(*[Text(make_visible(cell)) for cell in cells])
    return table
