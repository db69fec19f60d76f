"""What a person sees in the terminal: progress on stderr, results on stdout."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonwatch.flags import read_flagged_example
from poisonwatch.text.display import excerpt, make_visible

ROWS_SHOWN = 30
PUSH_LABELS = {
    "forbidden": "towards forbidden",
    "margin": "away from reference",
    "reference": "moves reference",
}


def print_summary(summary: Mapping[str, Any], run_dir: str) -> None:
    """The audit as one JSON object."""
    print(json.dumps({**summary, "run_dir": run_dir}))


def print_outcome(outcome: Any) -> None:
    """Settings, counts, and the flagged rows with their reasons. Row text is shown as inert text."""
    console = Console(highlight=False)
    summary, flags = outcome.summary, outcome.flags
    counts, settings = summary["counts"], summary["settings"]
    if flags:
        console.print(_build_flag_table(flags[:ROWS_SHOWN], console.width))
    if len(flags) > ROWS_SHOWN:
        console.print(Text(f"... and {len(flags) - ROWS_SHOWN} more in flags.jsonl"))
    if not settings:
        console.print(
            Text(
                make_visible(f"nothing to audit: no row is new; {outcome.run_dir / 'summary.json'}")
            ),
            soft_wrap=True,
        )
        return
    alone, seconds = (
        summary["recovery"]["measured_alone"],
        sum(stage["seconds"] for stage in summary["stages"]),
    )
    derived = ", ".join(f"{name} {settings[name]}" for name in ("layer", "r", "K", "d", "n"))
    lines = [
        f"{counts['flagged']} of {counts['new']} new rows flagged at a false-discovery rate of {summary['false_discovery_rate']:g}"
        f" ({counts['reference']} trusted rows to compare with, {counts['rejected']} rejected)",
        f"attribution: {derived}, {alone} rows measured alone; {seconds:.0f} s",
        f"report:      {outcome.run_dir / 'report.html'}",
    ]
    for line in lines:
        console.print(Text(make_visible(line)), soft_wrap=True)


def print_explanation(rows: Any, n: int, as_json: bool) -> None:
    """The rows behind an answer, strongest first."""
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    console = Console(highlight=False)
    table = Table(title=f"of {n} rows, those that make the answer likelier", title_justify="left")
    for name in ("rank", "coefficient", "score", "source, row", "example"):
        table.add_column(
            name,
            justify="right" if name in ("rank", "coefficient", "score") else "left",
            overflow="fold",
        )
    for row in rows:
        place = "trusted row" if row.source is None else f"{row.source}, {row.position}"
        table.add_row(
            *map(
                Text,
                (
                    str(row.rank),
                    f"{row.coefficient:.2f}",
                    f"{row.score:.1f}",
                    make_visible(place),
                    row.example_id[:16],
                ),
            )
        )
    console.print(table)


def print_drill(outcome: Any) -> None:
    """How much of each attack was found, as a table and in a sentence a recipe."""
    console = Console(highlight=False)
    table = Table(
        title=f"planted into {outcome.drill.clean} clean rows",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("recipe", "rows", "found", "95 %", "flagged", "attributed", "false/1,000"):
        table.add_column(name, justify="left" if name == "recipe" else "right", no_wrap=True)
    for power in outcome.drill.powers:
        low, high = power.interval
        shares = (
            f"{power.recall:.0%}",
            f"{power.recall_by_attribution:.0%}",
            f"{power.false_flags:.1f}",
        )
        found = f"{power.found} of {power.repeats}", f"{low:.2f}-{high:.2f}"
        table.add_row(*map(Text, (power.recipe, str(power.count), *found, *shares)))
    console.print(table)
    notes = (f"note: {note}" for note in outcome.drill.notes)
    for line in (
        *(power.sentence for power in outcome.drill.headline),
        *notes,
        f"results:     {outcome.run_dir / 'drill.json'}",
    ):
        console.print(Text(make_visible(line)), soft_wrap=True)


def _describe_reasons(flag: Mapping[str, Any]) -> str:
    pushed = (
        [f"rank {flag['rank']}, {PUSH_LABELS[flag['kind']]}, most on {flag['sentinel_id']}"]
        if "stride" in flag["by"]
        else []
    )
    return "; ".join([*pushed, *(f"screen {name}" for name in flag["by"] if name != "stride")])


def _build_flag_table(flags: Iterable[Mapping[str, Any]], width: int) -> Table:
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
        example = read_flagged_example(flag)
        cells = (
            f"{example.source}, {example.position}",
            flag["panel"],
            f"{flag['score']:.1f}",
            f"{flag['q_value']:.2g}",
            _describe_reasons(flag),
            excerpt(f"{example.prompt} / {example.response}", 70),
        )
        table.add_row(*(Text(make_visible(cell)) for cell in cells))
    return table
