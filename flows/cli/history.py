"""Past audits for the terminal, newest first: what the ledger knows, with what MLflow knows beside
it.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.audit_runs import TrackedRun
from poisonwatch.ledger.audit_lines import AuditLine, list_audit_lines, list_owed_targets
from poisonwatch.ledger.history import (
    PastAudit,
    count_undecided,
    list_past_audits,
    list_pending_targets,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import Mute, tell_mute
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.prunings import find_pruned
from poisonwatch.ledger.tables import audits
from poisonwatch.liveness.liveness import Liveness
from poisonwatch.text.display import make_visible

# What stands in the column MLflow, where it is not the state of the run there.
LEDGER_ONLY = "not in MLflow"
OWED = "owed"
NO_RUN = "no run"
PRUNED = "pruned"
NOT_ASKED = "?"
# What stands in the column state, where only MLflow knows the audit.
MLFLOW_ONLY = "not in the ledger"

TEXT_COLUMNS = ("audit", "state", "MLflow")
COLUMNS = ("audit", "state", "new", "flagged", "open", "rej", "score", "s", "MLflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """One audit. Counts are of rows, `seconds` of all stages; None where nobody knows. `owed`: who
    was not told of it yet;
    `muted`: of the flagged rows, those that nobody was told of.

    `poisonwatch history --json` prints the fields as they are named here.
    """

    started_at: str
    audit_id: str
    state: str
    new: int | None = None
    flagged: int | None = None
    undecided: int | None = None
    rejected: int | None = None
    largest_score: float | None = None
    seconds: float | None = None
    mlflow: str
    mlflow_run_id: str | None
    mlflow_url: str | None
    run_dir: str | None = None
    run_dir_pruned_at: str | None = None
    owed: tuple[str, ...] = ()
    muted: int | None = None


@dataclass(frozen=True, slots=True)
class EmptyAudits:
    """Audits that follow each other and that no row waited for, in words: the last of them began at
    `started_at`.
    """

    started_at: str
    words: str


def build_history_lines(
    ledger: Ledger,
    config: AuditConfig,
    tracked: dict[str, TrackedRun] | None,
    most: int,
    each: bool = True,
) -> list[HistoryLine | EmptyAudits]:
    """The last audits, at most `most` lines: a line for each, or one for all that follow each other
    and that no row waited for. `tracked` are those that MLflow knows, None where it could not be
    asked.
    """
    lines: list[HistoryLine | EmptyAudits] = []
    if each:
        past = list_past_audits(ledger, config.name, most)
        lines += _make_ledger_lines(ledger, past, tracked)
    else:
        ours = [audits.c.name == config.name]
        found, _ = list_audit_lines(ledger, ours, most)
        past = [line.newest for line in found]
        for line, shown in zip(found, _make_ledger_lines(ledger, past, tracked), strict=True):
            collapsed = line.is_collapsed
            lines.append(
                _collapse(line, list_owed_targets(ledger, line, ours)) if collapsed else shown
            )
    # Where the ledger holds more than was read of it, a run that is not among these may be an audit
    # further back: nothing can be said of it.
    if len(lines) < most:
        known = {audit.audit_id for audit in past}
        for id, run in (tracked or {}).items():
            if id not in known:
                _insert_by_time(lines, _make_mlflow_line(run))
    return lines[:most]


def _collapse(line: AuditLine, owed: Sequence[str]) -> EmptyAudits:
    words = line.describe()
    if owed:
        words += f"; {OWED} to {' and '.join(owed)}"
    return EmptyAudits(line.until, words)


def _make_ledger_lines(
    ledger: Ledger, past: Sequence[PastAudit], tracked: dict[str, TrackedRun] | None
) -> list[HistoryLine]:
    """A line for each of these audits."""
    numbers = [audit.number for audit in past]
    waiting = count_undecided(ledger, numbers)
    pending = list_pending_targets(ledger, numbers)
    with ledger.read() as connection:
        pruned = find_pruned(connection, [audit.audit_id for audit in past])
    lines = []
    for audit in past:
        run = (tracked or {}).get(audit.audit_id)
        owed = pending.get(audit.number, set())
        pruned_at = pruned.get(audit.audit_id)
        lines.append(
            _make_ledger_line(
                audit,
                undecided=waiting.get(audit.number, 0),
                owed=owed,
                run=run,
                mlflow=_describe_tracking(audit, run, owed, tracked is not None, pruned_at),
                pruned_at=pruned_at,
            )
        )
    return lines


def _insert_by_time(lines: list[HistoryLine | EmptyAudits], line: HistoryLine) -> None:
    """Put a line that has no number before the first that began no later; those of the ledger stay
    in the order of their numbers, whatever the clock said.
    """
    begun = [other.started_at <= line.started_at for other in lines]
    place = begun.index(True) if True in begun else len(lines)
    lines.insert(place, line)


def _describe_tracking(
    audit: PastAudit, run: TrackedRun | None, owed: set[str], asked: bool, pruned_at: str | None
) -> str:
    """What MLflow knows of an audit of the ledger, in a word or two."""
    # What is owed is said first: a run is opened when its audit begins, so that there may be one
    # that was not told yet how its audit ended.
    if MLFLOW in owed:
        return OWED
    # Only the trend has such an audit.
    if audit.nothing_new:
        return NO_RUN
    if not asked:
        return NOT_ASKED
    if run is None:
        return PRUNED if pruned_at else LEDGER_ONLY
    return run.status.lower()


def _make_ledger_line(
    audit: PastAudit,
    undecided: int,
    owed: set[str],
    run: TrackedRun | None,
    mlflow: str,
    pruned_at: str | None,
) -> HistoryLine:
    """A line of an audit in the ledger, of whose flagged rows `undecided` wait for a verdict."""
    # The summary is empty, or older than a key of it, where an audit was interrupted or made by an
    # earlier version: what it does not say stays None.
    summary = audit.summary
    counts = summary.get("counts", {})
    scores = [panel["largest_score"] for panel in summary.get("panels", ())]
    run_id, url = summary.get("mlflow_run_id"), None
    if run is not None:
        run_id, url = run.run_id, run.url
    return HistoryLine(
        started_at=audit.started_at,
        audit_id=audit.audit_id,
        state=audit.state,
        new=counts.get("new"),
        flagged=counts.get("flagged"),
        undecided=undecided if counts else None,
        rejected=counts.get("rejected"),
        largest_score=max(scores, default=None),
        seconds=_sum_seconds(summary),
        mlflow=mlflow,
        mlflow_run_id=run_id,
        mlflow_url=url,
        run_dir=None if audit.nothing_new else str(audit.run_dir),
        run_dir_pruned_at=pruned_at,
        owed=tuple(sorted(owed)),
        muted=_count_muted(summary),
    )


def _count_muted(summary: Mapping[str, Any]) -> int | None:
    """The flagged rows that nobody was told of, since they were muted."""
    if "muted" not in summary:
        return None
    held: int = sum(mute["rows"] for mute in summary["muted"])
    return held


def _sum_seconds(summary: Mapping[str, Any]) -> float | None:
    if "stages" not in summary:
        return None
    seconds: float = sum(stage["seconds"] for stage in summary["stages"])
    return seconds


def _make_mlflow_line(run: TrackedRun) -> HistoryLine:
    """A line of an audit that the ledger has lost, or another machine's ledger has."""
    started = datetime.fromtimestamp(run.started / 1000, UTC)
    return HistoryLine(
        started_at=started.isoformat(timespec="seconds"),
        audit_id=run.audit_id,
        state=MLFLOW_ONLY,
        flagged=run.flagged,
        mlflow=run.status.lower(),
        mlflow_run_id=run.run_id,
        mlflow_url=run.url,
    )


def tell_liveness(liveness: Liveness, as_json: bool) -> None:
    """Whether audits come, in a line before the table: "last audit 3 h ago, expected every 1 h".
    Beside JSON, only that they do not, where no program reads it.
    """
    line = make_visible(f"{liveness.name}: {liveness.describe()}")
    if not as_json:
        print(line)
    elif liveness.is_overdue:
        print(f"warning: {line}", file=sys.stderr)


def tell_muted(mutes: Iterable[Mute]) -> None:
    """What is muted now, a line each below the table."""
    for mute in mutes:
        print(make_visible(tell_mute(mute.describe())))


def print_history(lines: Sequence[HistoryLine | EmptyAudits], as_json: bool) -> None:
    """A table, or one JSON object a line."""
    if as_json:
        for line in lines:
            print(json.dumps(asdict(line)))
        return
    console = Console(highlight=False)
    rows = [_format_cells(line) for line in lines if isinstance(line, HistoryLine)]
    # No cell of a table spans its columns: it is printed in parts, which are as wide as the whole.
    widths = [max(map(cell_len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    title = "an audit's name begins with its time (UTC); score is the largest"
    console.print(Text(title, "italic"))
    console.print(_make_table(widths, [], with_header=True))
    for part in _split(lines):
        if isinstance(part, EmptyAudits):
            console.print(Text(part.words, "dim"))
        else:
            cells = [_format_cells(line) for line in part]
            console.print(_make_table(widths, cells, with_header=False))


def _split(
    lines: Iterable[HistoryLine | EmptyAudits],
) -> Iterator[list[HistoryLine] | EmptyAudits]:
    """What is printed together."""
    part: list[HistoryLine] = []
    for line in lines:
        if isinstance(line, HistoryLine):
            part.append(line)
            continue
        if part:
            yield part
        part = []
        yield line
    if part:
        yield part


def _make_table(widths: Sequence[int], rows: Sequence[Sequence[str]], with_header: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=with_header)
    for name, width in zip(COLUMNS, widths, strict=True):
        if name in TEXT_COLUMNS:
            table.add_column(name, no_wrap=True, min_width=width)
        else:
            table.add_column(name, justify="right", min_width=width)
    for cells in rows:
        # Text, and not str: rich would read [bold] and the like in a str as its own markup
        table.add_row(*map(Text, cells))
    return table


def _format_cells(line: HistoryLine) -> list[str]:
    """A line by COLUMNS."""
    numbers = [
        _format_number(line.new),
        _format_number(line.flagged),
        _format_number(line.undecided),
        _format_number(line.rejected),
        _format_number(line.largest_score, ".1f"),
        _format_number(line.seconds, ",.0f"),
    ]
    return [make_visible(cell) for cell in (line.audit_id, line.state, *numbers, line.mlflow)]


def _format_number(value: float | None, form: str = ",") -> str:
    """A number in a table; a dash where nobody knows it."""
    if value is None:
        return "-"
    return format(value, form)
