"""Which drills go, and the removal of their run directories; of their MLflow runs,
`integrations.mlflow.prune`.

No ledger knows of drills, and nothing that counts leans on them. They are found by what lies below
`runs` beside the audit file, and by their runs in MLflow; the last ones always stay.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from poisonwatch.atomic import sync_folder
from poisonwatch.errors import RunError
from poisonwatch.keep_config import KeepConfig
from poisonwatch.pruning.plan import (
    CHANGED,
    LAST,
    PRUNED_SUFFIX,
    YOUNG,
    count_bytes,
    get_pruned_path,
)
from poisonwatch.run_directory.checksums import CHECKSUMS_FILE, list_differences
from poisonwatch.run_directory.layout import DRILL_FILE, RUNS_FOLDER, SETTINGS_FILE, read_summary

# What a drill writes, in the order in which it goes: as long as something is left, what it was can
# be told.
FILES = (CHECKSUMS_FILE, SETTINGS_FILE, DRILL_FILE)


@dataclass(frozen=True, slots=True)
class DrillRemoval:
    """A drill's run directory that goes, in bytes."""

    drill_id: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPruning:
    """What goes, what an earlier prune left half-removed (`leftovers`), and how many run
    directories of drills stay for which reason. `drill_ids` are those of all drills that go,
    wherever their run directories are.
    """

    removals: Sequence[DrillRemoval]
    leftovers: Sequence[Path]
    kept: Mapping[str, int]
    drill_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Drill:
    drill_id: str
    began: datetime
    path: Path


def plan_drill_pruning(
    folder: Path | None, name: str, keep: KeepConfig, tracked: Mapping[str, datetime]
) -> DrillPruning:
    """Look through the drills of an audit's name below an audit file's folder (None: none is
    known), and those that MLflow knows (`tracked`, when each began); nothing is changed.
    """
    runs = None if folder is None else folder / RUNS_FOLDER
    found = [] if runs is None else list(_find_drills(runs, name))
    began = {**tracked, **{drill.drill_id: drill.began for drill in found}}
    newest = sorted(began, key=lambda id: (began[id], id), reverse=True)
    since = datetime.now(UTC) - timedelta(days=keep.days)
    reasons = {id: YOUNG for id in newest if began[id] > since}
    reasons |= dict.fromkeys(newest[: keep.drills], LAST)
    removals, kept = [], Counter[str]()
    for drill in found:
        if drill.drill_id not in reasons and not _is_own(drill.path):
            reasons[drill.drill_id] = CHANGED
        reason = reasons.get(drill.drill_id)
        if reason is not None:
            kept[reason] += 1
        else:
            size = count_bytes(drill.path)
            removals.append(DrillRemoval(drill.drill_id, drill.path, size))
    return DrillPruning(
        removals=removals,
        leftovers=[] if runs is None else list(_find_leftovers(runs, name)),
        kept=dict(kept),
        drill_ids=frozenset(began) - reasons.keys(),
    )


def remove_drills(pruning: DrillPruning) -> list[str]:
    """Remove the run directories that go: a line for each that cannot be."""
    failures: list[str] = []
    for path in [*pruning.leftovers, *(removal.path for removal in pruning.removals)]:
        try:
            _remove(path)
        # One that cannot be removed keeps none of the others.
        except OSError as error:
            failures.append(f"{path} cannot be removed: {error.strerror}")
    return failures


def _remove(path: Path) -> None:
    """Rename a run directory away, where it is not yet, and delete what a drill wrote in it."""
    away = path
    if path.suffix != PRUNED_SUFFIX:
        away = get_pruned_path(path)
        path.rename(away)
        sync_folder(away.parent)
    for name in FILES:
        (away / name).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        away.rmdir()


def _find_drills(runs: Path, name: str) -> Iterator[_Drill]:
    """The run directories of drills of an audit's name."""
    for path in sorted(_list_folders(runs)):
        report = read_summary(path, DRILL_FILE) or {}
        drill_id, created = report.get("drill_id"), report.get("created")
        if report.get("name") != name or path.suffix == PRUNED_SUFFIX:
            continue
        if isinstance(drill_id, str) and isinstance(created, str):
            # A time that is none is no drill's.
            with suppress(ValueError, OverflowError):
                yield _Drill(drill_id, datetime.fromisoformat(created).astimezone(UTC), path)


def _find_leftovers(runs: Path, name: str) -> Iterator[Path]:
    """Run directories of drills that a prune renamed away, and did not remove."""
    for path in sorted(_list_folders(runs)):
        if path.suffix != PRUNED_SUFFIX or not _holds_drill_files_alone(path):
            continue
        report = read_summary(path, DRILL_FILE) or {}
        if not any(path.iterdir()) or report.get("name") == name:
            yield path


def _list_folders(runs: Path) -> list[Path]:
    """Links are none of ours."""
    if not runs.is_dir():
        return []
    return [path for path in runs.iterdir() if path.is_dir() and not path.is_symlink()]


def _is_own(path: Path) -> bool:
    """Whether a run directory is as its drill wrote it."""
    if not _holds_drill_files_alone(path):
        return False
    try:
        return not list_differences(path)
    except RunError:
        return False


def _holds_drill_files_alone(path: Path) -> bool:
    try:
        return {entry.name for entry in path.iterdir()} <= set(FILES)
    # Not ours to read.
    except OSError:
        return False
