"""What `watch` says of each run: one line."""

import json
from datetime import datetime
from pathlib import Path

from prefect.client.schemas.objects import State

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import PoisonwatchError
from poisonwatch.failures import tell_failures
from poisonwatch.ledger.history import PastAudit, find_by_flow_run
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import PastProbe, list_probes_since
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

LONGEST = 400  # characters of why a run failed


def describe_audit(
    config: Path, run: str, state: State | None, began: datetime, took: float
) -> str:
    """The line of the audit of a flow run, which `took` so many seconds: what it found, by the
    ledger; or why it found nothing, by Prefect.
    """
    found = _find_audit(config, run)
    begun = f"{began:%Y-%m-%d %H:%M}"
    if found is None:
        return f"{begun} {_describe_state(state)}, {format_seconds(took)}"
    counts = found.summary["counts"]
    flagged = "nothing flagged"
    if counts["flagged"]:
        flagged = f"{counts['flagged']} flagged"
    line = f"{begun} {plural(counts['new'], 'new row')}, {flagged}, {format_seconds(took)}"
    for failure in tell_failures(found.summary):
        line += f"; {failure}"
    if state is not None and state.is_paused():
        line += "; waits for a verdict in Prefect"
    return line


def describe_drill(state: State | None, began: datetime, took: float) -> str:
    """The line of a drill."""
    what = "drill: done"
    if state is None or not state.is_completed():
        what = f"drill: {_describe_state(state)}"
    return f"{began:%Y-%m-%d %H:%M} {what}, {format_seconds(took)}"


def describe_probes(config: Path, state: State | None, began: datetime, took: float) -> str | None:
    """The line of a look for new checkpoints: what moved, by the ledger, and why one could not be
    probed, by Prefect. None where there was nothing new.
    """
    found = _find_probes(config, began)
    parts = []
    if found:
        moved = [probe for probe in found if probe.has_moved]
        what = f"{len(moved)} moved: " + ", ".join(probe.checkpoint[:12] for probe in moved)
        parts.append(
            f"{plural(len(found), 'checkpoint')} probed, {what if moved else 'none moved'}"
        )
    if state is None or not state.is_completed():
        parts.append(f"probe: {_describe_state(state)}")
    if not parts:
        return None
    return f"{began:%Y-%m-%d %H:%M} {'; '.join(parts)}, {format_seconds(took)}"


def _find_probes(config: Path, began: datetime) -> list[PastProbe]:
    try:
        settings: AuditConfig = load_config(config)
        with Ledger.existing(settings.state) as ledger:
            # Records tell their times in whole seconds.
            return list_probes_since(ledger, settings.name, began.replace(microsecond=0))
    except (PoisonwatchError, OSError):
        return []


def _find_audit(config: Path, run: str) -> PastAudit | None:
    try:
        # read anew: an audit file may be changed while it is watched
        settings: AuditConfig = load_config(config)
        with Ledger.existing(settings.state) as ledger:
            return find_by_flow_run(ledger, run)
    except (PoisonwatchError, OSError, json.JSONDecodeError):
        # the run itself met the same, and says why
        return None


def _describe_state(state: State | None) -> str:
    if state is None:
        return "its end is unknown: Prefect does not know the run any more"
    what = (state.name or state.type.value).lower()
    # Prefect's words around an error say nothing that the state does not
    why = (state.message or "").removeprefix("Flow run encountered an exception: ")
    if not why:
        return what
    return f"{what}: {excerpt(why, LONGEST)}"


def format_seconds(seconds: float) -> str:
    """As "2.1 s", "21 s" or "3 min 20 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
