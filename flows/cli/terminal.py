"""Results of commands on stdout: of an audit, of a question, of a drill. What a person sees while
these are at work is in `flows/reporter.py`, on stderr.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.failures import tell_failures
from poisonwatch.flows.cli.flag_blocks import ID_DIGITS, build_blocks, build_explanation
from poisonwatch.ledger.mutes import tell_held_back
from poisonwatch.reports.coverage import (
    NEAR_COPIES_FILE,
    tell_guarded,
    tell_near_copies,
    tell_not_asked,
    tell_unmoved,
)
from poisonwatch.reports.discovery import tell_discovery
from poisonwatch.reports.new_topics import tell_new_topics
from poisonwatch.run_directory import read as readback
from poisonwatch.text.display import make_visible
from poisonwatch.text.words import plural, wrap_words

WIDEST = 100  # columns: longer lines are hard to read
LABEL = 13  # columns before what is told
NEAR_COPIES_SHOWN = 3


def print_summary(summary: Mapping[str, Any], run_dir: str) -> None:
    """The audit as one JSON object; its `run_dir` is null where it left none."""
    left = None if summary.get("nothing_new") else run_dir
    print(json.dumps({**summary, "run_dir": left}))


def print_outcome(outcome: Any, config: Path | None = None) -> None:
    """Flagged rows by group with their reasons, counts, settings, and what comes next with the
    audit file `config`, of an `AuditOutcome`. Row text is shown as inert text.
    """
    console = Console(highlight=False)
    flags, folder = outcome.flags, outcome.run_dir
    evidence = readback.read_evidence(folder) if flags else ()
    width = min(console.width, WIDEST)
    lines = build_blocks(flags, evidence, width)
    if outcome.summary["settings"]:
        lines += _describe_audit(outcome.summary, folder, config, width)
    else:
        # settings are derived from the rows: where none was new, there are none
        nothing = "nothing to audit: no row is new"
        in_ledger_alone = outcome.summary.get("nothing_new")
        lines.append(nothing if in_ledger_alone else f"{nothing}; {folder / 'summary.json'}")
    if flags and config is not None:
        example = "--group 1" if evidence else flags[0]["example_id"][:ID_DIGITS]
        lines += [
            f"next:        poisonwatch dashboard {config}",
            f"             poisonwatch decide {config} {example} poison",
        ]
    _print_lines(console, lines)


def _describe_audit(
    summary: Mapping[str, Any], folder: Path, config: Path | None, width: int
) -> list[str]:
    """What stands below the flags."""
    counts, settings = summary["counts"], summary["settings"]
    flagged = f"{counts['flagged']} of {counts['new']} new rows flagged"
    rate = f"{summary['false_discovery_rate']:g}"
    # Audits of earlier versions measured one layer.
    layers = [settings["layer"], *settings.get("further", ())]
    derived = f"{'layers' if len(layers) > 1 else 'layer'} {', '.join(map(str, layers))}; "
    derived += ", ".join(f"{name} {settings[name]}" for name in ("r", "K", "d", "n"))
    alone = summary["recovery"]["measured_alone"]
    seconds = sum(stage["seconds"] for stage in summary["stages"])
    compared = plural(counts["reference"], "trusted row")
    rejected = plural(counts["rejected"], "row")
    measured = plural(alone, "row")
    if counts["reference"] < LEAST_TRUSTED:
        compared += (
            ", too few to judge by: take flags as a ranking, and see on the dashboard what else "
            "scores high"
        )
    told = [
        f"{flagged} at a false-discovery rate of {rate}",
        f"compared:    with {compared}; {rejected} rejected",
        f"attribution: {derived}; {measured} measured alone; {seconds:.0f} s",
        *tell_new_topics(summary),
    ]
    return [
        *(line for text in told for line in wrap_words(text, width, LABEL)),
        *_describe_coverage(summary, folder, config, width),
        *_describe_discovery(summary, config, width),
        *(
            line
            for text in (*_describe_failures(summary), *tell_held_back(summary))
            for line in wrap_words(text, width, LABEL)
        ),
        f"report:      {folder / 'report.html'}",
    ]


def _describe_coverage(
    summary: Mapping[str, Any], folder: Path, config: Path | None, width: int
) -> list[str]:
    """What was guarded and what was not, and rows that are like flagged ones."""
    lines = []
    for label, told in (
        ("guarded:", tell_guarded(summary)),
        ("not asked:", tell_not_asked(summary)),
        ("not told:", tell_unmoved(summary)),
        ("more like", tell_near_copies(summary)),
    ):
        if told is not None:
            lines += textwrap.wrap(
                told, width, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL
            )
    if tell_near_copies(summary) is not None:
        lines += _list_near_copies(summary, folder, config)
    return lines


def _describe_discovery(summary: Mapping[str, Any], config: Path | None, width: int) -> list[str]:
    """What was found without sentinels, where that was looked for, and the command that shows
    it.
    """
    told = tell_discovery(summary)
    if told is None:
        return []
    lines = textwrap.wrap(
        told, width, initial_indent=f"{'discovered:':<{LABEL}}", subsequent_indent=" " * LABEL
    )
    if config is not None and summary["discovery"]["groups"]:
        lines.append(f"{'':<{LABEL}}poisonwatch discover {config}")
    return lines


def _list_near_copies(
    summary: Mapping[str, Any], folder: Path, config: Path | None
) -> Iterator[str]:
    """The first rows that are like flagged ones, as `decide` takes them, and the command that
    decides on all.
    """
    for number, near in enumerate(summary["coverage"]["near_copies"]["shown"][:NEAR_COPIES_SHOWN]):
        label = "these:" if number == 0 else ""
        place = f"{near['source']}:{near['line']}  {near['example_id'][:ID_DIGITS]}"
        group = "" if near["group"] is None else f", of group {near['group']}"
        yield f"{label:<{LABEL}}{place}  {near['likeness']:.0%} alike{group}"
    if config is not None:
        file = folder / NEAR_COPIES_FILE
        yield f"{'':<{LABEL}}poisonwatch decide {config} --rows {file} --unflagged poison"


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


def print_explanation(found: Any, as_json: bool) -> None:
    """The rows behind an answer, strongest first, each with its place and its text, and a line on
    which of their numbers are exact, of an `Explanation`.
    """
    if as_json:
        for row in found.rows:
            print(json.dumps(asdict(row)))
        return
    console = Console(highlight=False)
    lines = [f"of {found.total} rows, those that make the answer likelier", ""]
    lines += build_explanation(found.rows, found.examples, min(console.width, WIDEST))
    if found.exactness:
        lines += ["", found.exactness]
    _print_lines(console, lines)


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
