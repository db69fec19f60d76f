"""What of MLflow may go with past audits, and what stays: found without its client where that is
possible, which takes more than two seconds to import.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.audit_runs import list_runs
from poisonwatch.integrations.mlflow.direct import (
    NotDirectError,
    StoredRun,
    find_store_file,
    list_aliased_audits,
)
from poisonwatch.integrations.mlflow.names import list_model_names
from poisonwatch.ledger.history import (
    COMMITTED_STATES,
    HAD_ROWS,
    list_past_audits,
    list_pending_targets,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.tables import audits

AUDITS_PER_READ = 50
AUDIT_ID = "poisonwatch.audit_id"  # tag of runs: an audit's id, or a drill's
PARENT = "mlflow.parentRunId"  # MLflow's own tag of a run inside another

# Of fewer unflagged rows the share below says little. Of calibrated p-values 5 % are <= .05.
LEAST_CALIBRATION_ROWS = 40
MOST_SMALL_P_VALUES = 0.15


@dataclass(frozen=True, slots=True)
class RunTotals:
    """So many runs, and the bytes of their artifacts."""

    runs: int
    bytes: int


def find_latest_good(ledger: Ledger, name: str) -> str | None:
    """The audit of a name whose operators are the champion's, by what the ledger alone knows; None
    where there is none.
    """
    offset, which = 0, [HAD_ROWS, audits.c.state.in_(COMMITTED_STATES)]
    while past := list_past_audits(ledger, name, AUDITS_PER_READ, offset, which):
        owed = list_pending_targets(ledger, [audit.number for audit in past])
        for audit in past:
            # What MLflow was not told yet is no champion there.
            if MLFLOW not in owed.get(audit.number, ()) and is_good(audit.summary):
                return audit.audit_id
        offset += AUDITS_PER_READ
    return None


def is_good(summary: Mapping[str, Any]) -> bool:
    """Whether an audit's operators may be trusted with other questions.

    They may where operators were fitted, no sentinel has a problem, and no panel's p-values are
    broken: of its unflagged new rows, if there are 40 or more, at most 15 % have p <= .05. Of a
    summary that lacks any of this nothing is known to be good.
    """
    if not summary.get("settings") or summary.get("sentinel_problems", True):
        return False
    for panel in summary.get("panels", ()):
        # Summaries of earlier versions do not count a panel's unflagged rows.
        judged = panel.get("unflagged", 0) >= LEAST_CALIBRATION_ROWS
        if judged and panel.get("p_below_0.05", 1.0) > MOST_SMALL_P_VALUES:
            return False
    return True


def find_champions(config: AuditConfig) -> set[str]:
    """The ids of the audits of a name whose operators carry an alias in MLflow. Raises
    OperationError where the server cannot be used.
    """
    if not _has_store(config):
        return set()
    try:
        return list_aliased_audits(config, list_model_names(config.name))
    except NotDirectError:
        from poisonwatch.integrations.mlflow import prune

        return prune.find_champions(config)


def list_drills(config: AuditConfig) -> dict[str, datetime]:
    """When each drill of a name began, by its id, of those that have a run in MLflow. Raises
    OperationError where the server cannot be used.
    """
    found: dict[str, datetime] = {}
    for run in list_runs(config, "drill", newest_first=False):
        found[run.tags.get(AUDIT_ID, "")] = datetime.fromtimestamp(run.started / 1000, UTC)
    return found


def prune_runs(config: AuditConfig, audit_ids: Collection[str], delete: bool) -> RunTotals:
    """The MLflow runs of these audits and drills, which are deleted with their artifacts where
    `delete` says so. Raises OperationError where the server cannot be used.
    """
    if not audit_ids or not _has_store(config):
        return RunTotals(0, 0)
    if not delete and find_store_file(config) is not None:
        runs = _find_runs(config, audit_ids)
        folders = [_find_folder(run.artifact_uri) for run in runs]
        if None not in folders:
            return RunTotals(len(runs), sum(_count_bytes(folder) for folder in folders if folder))
    from poisonwatch.integrations.mlflow import prune

    return prune.prune_runs(config, audit_ids, delete)


def _find_runs(config: AuditConfig, audit_ids: Collection[str]) -> list[StoredRun]:
    """The runs of these audits, and those of these drills, each with the runs inside it."""
    found: list[StoredRun] = []
    for kind in ("audit", "drill"):
        runs = list_runs(config, kind)
        found += [run for run in runs if run.tags.get(AUDIT_ID) in audit_ids]
    ids = {run.run_id for run in found}
    return found + [run for run in list_runs(config, "drilled") if run.tags.get(PARENT) in ids]


def _has_store(config: AuditConfig) -> bool:
    """Whether there is something to ask: to ask for a SQLite store that is not there makes one."""
    if config.tracking is None:
        return False
    file = find_store_file(config)
    return file is None or file.is_file()


def _find_folder(place: str) -> Path | None:
    """The folder that a run's artifacts are in; None where they are in none of this machine."""
    parts = urlsplit(place)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(place) if parts.scheme == "" else None


def _count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
