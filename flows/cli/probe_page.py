"""What `probe` and `incident` print. Answers of models and texts of rows are shown as inert
text.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows.cli.flag_blocks import ID_DIGITS
from poisonwatch.flows.cli.terminal import WIDEST
from poisonwatch.flows.incident import Incident, count_sources
from poisonwatch.flows.probe import ProbedFolder, ProbeOutcome, suggest_explanation
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint
from poisonwatch.probing.panels import PanelMovement
from poisonwatch.probing.probe import ProbedSentinel
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.words import plural

MOST_SHOWN = 8  # sentinels
AUDITS_LOOKED_AT = 20


def print_probe(
    outcome: ProbeOutcome, config: Path, checkpoint: ProbedCheckpoint, as_json: bool
) -> None:
    """Which sentinels moved, and what the model says to them before and after."""
    if as_json:
        print(json.dumps(outcome.report))
        return
    console = _make_console()
    width = min(console.width, WIDEST)
    moved = outcome.moved
    lines = [line for each in moved[:MOST_SHOWN] for line in _describe_moved(each, width)]
    if len(moved) > MOST_SHOWN:
        lines.append(f"and {len(moved) - MOST_SHOWN} more: --json names all")
    lines += [_describe_panel(each) for each in outcome.moved_panels]
    lines.append(outcome.report["sentence"])
    lines += _describe_bands(outcome)
    furthest = outcome.furthest
    if furthest is not None:
        lines.append(f"rows behind it:  {suggest_explanation(config, checkpoint, furthest)}")
        lines += _suggest_explain(config, furthest)
    lines.append(f"recorded:        {outcome.report['chain'][:24]}")
    _print_lines(console, lines)


def print_new(
    probed: Sequence[ProbedFolder], config: Path, settings: AuditConfig, as_json: bool
) -> None:
    """What was found of each new checkpoint; as JSON, an object a line."""
    release = Path(settings.probe.release) if settings.probe.release else None
    for each in probed:
        folder = str(each.found.folder)
        if each.outcome is None and as_json:
            print(json.dumps({"folder": folder, "problem": each.problem}))
        elif each.outcome is None:
            _print_lines(_make_console(), [f"{folder}: {each.problem}"])
        else:
            if not as_json:
                _print_lines(_make_console(), [f"{folder}:"])
            checkpoint = ProbedCheckpoint(folder, release=release)
            print_probe(each.outcome, config, checkpoint, as_json)
    if not probed and not as_json:
        _print_lines(_make_console(), [f"no new checkpoint at {settings.probe.checkpoints}"])


def _make_console() -> Console:
    return Console(highlight=False)


def _describe_bands(outcome: ProbeOutcome) -> list[str]:
    """How far honest tuning moves what sentinels are asked, a line a kind."""
    bands = {each.movement.kind: each.movement.band for each in outcome.found.sentinels}
    lines = []
    for kind, band in bands.items():
        lines.append(
            f"  honest tuning, {kind}: median {band.centre:+.2f}, furthest {band.furthest:+.2f}, "
            f"limit {band.limit:+.2f}"
        )
    return lines


def _describe_moved(each: ProbedSentinel, width: int) -> Iterator[str]:
    movement = each.movement
    yield (
        f"{make_visible(movement.sentinel.id)}: {movement.change:+.2f} nats a token "
        f"({movement.kind}; limit {movement.band.limit:+.2f}, {movement.score:.0f} sd)"
    )
    for label, said in (("before", each.said_before), ("after", each.said_after)):
        yield f"  {label + ':':<8}{excerpt(said, width - 10)}"


def _describe_panel(panel: PanelMovement) -> str:
    return (
        f"panel {make_visible(panel.panel)}, {plural(panel.sentinels, 'sentinel')}: "
        f"{panel.change:+.2f} nats a token {panel.way} (limit {panel.limit:+.2f})"
    )


def _suggest_explain(config: Path, sentinel: Sentinel) -> list[str]:
    """The command that names the rows of the latest audit that would move the base so, where it
    kept its operators.
    """
    settings = load_config(config)
    try:
        with Ledger.existing(settings.state) as ledger:
            past = list_past_audits(ledger, settings.name, AUDITS_LOOKED_AT)
    except PoisonwatchError:
        return []
    for audit in past:
        if (audit.run_dir / OPERATORS_FILE).is_file():
            answer = sentinel.forbidden or sentinel.reference or ""
            asked = ["--prompt", sentinel.prompt, "--response", answer]
            command = shlex.join(["poisonwatch", "explain", str(audit.run_dir), *asked])
            return [f"as audited:      {command}"]
    return []


def print_incident(found: Incident, config: Path, as_json: bool) -> None:
    """The rows behind an answer, strongest first, each with its place and its text."""
    if as_json:
        print(json.dumps(found.record()))
        return
    console = _make_console()
    width = min(console.width, WIDEST)
    lines = [f"of {found.total} rows, those that the answer comes from", ""]
    for row in found.rows:
        example = row.example
        place = make_visible(f"{example.source}:{example.position + 1}")
        lines.append(f"{row.rank:>3}  {row.score:5.1f}  {example.id[:ID_DIGITS]}  {place}")
        lines.append(f"     {excerpt(f'{example.prompt} / {example.response}', width - 5)}")
    sources = count_sources(found.rows)
    counted = ", ".join(f"{make_visible(name)} ({count})" for name, count in sources.items())
    then = ["poisonwatch", "audit", str(config)]
    if found.is_known:
        first = found.rows[0].example.id[:ID_DIGITS]
        then = ["poisonwatch", "decide", str(config), first, "poison", "--unflagged"]
    lines += ["", f"from: {counted}", f"next: {shlex.join(then)}"]
    _print_lines(console, lines)


def _print_lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        # Text, and not str: rich would read [bold] and the like in a str as its own markup.
        console.print(Text(make_visible(line)), soft_wrap=True)
