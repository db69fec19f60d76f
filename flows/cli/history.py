"""Past audits for the terminal, newest first: what the ledger knows, with what MLflow knows beside
it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import TrackedRun
from poisonwatch.ledger.history import (
    PastAudit,
    count_undecided,
    list_past_audits,
    list_pending_targets,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.text.display import make_visible

LEDGER_ONLY, MLFLOW_ONLY = "not in MLflow", "not in the ledger"


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One audit. Counts are of rows, `seconds` of all stages; None where nobody knows. `owed`: who
    was not told of it yet.
    """

    started_at: str
    audit_id: str
    state: str
    new: int | None
    flagged: int | None
    undecided: int | None
    rejected: int | None
    largest_score: float | None
    seconds: float | None
    mlflow: str
    mlflow_run_id: str | None
    mlflow_url: str | None
    run_dir: str | None
    owed: tuple[str, ...]


def build_history_lines(
    ledger: Ledger, config: AuditConfig, tracked: dict[str, TrackedRun] | None, most: int
) -> list[HistoryLine]:
    """The last audits, at most `most`. `tracked` are those that MLflow knows, None where it could
    not be asked.
    """
    past = list_past_audits(ledger, config.name, most)
    numbers = [audit.number for audit in past]
    waiting, owing = count_undecided(ledger, numbers), list_pending_targets(ledger, numbers)
    runs = tracked or {}
    known = [
        _make_ledger_line(
            audit,
            waiting.get(audit.number, 0),
            owing.get(audit.number, set()),
            runs.get(audit.audit_id),
            tracked is None,
        )
        for audit in past
    ]
    only = [
        _make_mlflow_line(run)
        for audit_id, run in runs.items()
        if audit_id not in {audit.audit_id for audit in past}
    ]
    whole = len(past) < most  # else they may be in the ledger, further back
    return sorted(
        [*known, *(only if whole else ())], key=lambda line: line.started_at, reverse=True
    )[:most]


def _make_ledger_line(
    audit: PastAudit, waiting: int, owes: set[str], run: TrackedRun | None, unasked: bool
) -> HistoryLine:
    summary = audit.summary
    counts = summary.get("counts", {})
    scores = [panel["largest_score"] for panel in summary.get("panels", ())]
    told = (
        "owed"
        if MLFLOW in owes
        else "?"
        if unasked
        else LEDGER_ONLY
        if run is None
        else run.status.lower()
    )
    return HistoryLine(
        audit.started_at,
        audit.audit_id,
        audit.state,
        counts.get("new"),
        counts.get("flagged"),
        waiting if counts else None,
        counts.get("rejected"),
        max(scores, default=None),
        sum(stage["seconds"] for stage in summary["stages"]) if "stages" in summary else None,
        told,
        run.run_id if run else summary.get("mlflow_run_id"),
        run.url if run else None,
        str(audit.run_dir),
        tuple(sorted(owes)),
    )


def _make_mlflow_line(run: TrackedRun) -> HistoryLine:
    started = datetime.fromtimestamp(run.started / 1000, UTC).isoformat(timespec="seconds")
    nothing = None, None, None, None
    return HistoryLine(
        started,
        run.audit_id,
        MLFLOW_ONLY,
        None,
        run.flagged,
        *nothing,
        run.status.lower(),
        run.run_id,
        run.url,
        None,
        (),
    )


def print_history(lines: Sequence[HistoryLine], as_json: bool) -> None:
    """A table, or one JSON object a line."""
    if as_json:
        for line in lines:
            print(json.dumps(asdict(line)))
        return
    console = Console(highlight=False)
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title="an audit's name begins with its time (UTC); score is the largest",
        title_justify="left",
    )
    for name in ("audit", "state", "new", "flagged", "open", "rej", "score", "s", "MLflow"):
        table.add_column(
            name,
            justify="left" if name in ("audit", "state", "MLflow") else "right",
            no_wrap=name in ("audit", "state", "MLflow"),
        )
    for line in lines:
        numbers = (line.new, line.flagged, line.undecided, line.rejected)
        shown = ["-" if number is None else f"{number:,}" for number in numbers]
        shown += [
            "-" if line.largest_score is None else f"{line.largest_score:.1f}",
            "-" if line.seconds is None else f"{line.seconds:,.0f}",
        ]
        table.add_row(
            *(Text(make_visible(cell)) for cell in (line.audit_id, line.state, *shown, line.mlflow))
        )
    console.print(table)
