"""Which run directories and operators of past audits go, and why the others stay.

An audit stays whole as long as there is a reason for it, and goes by parts: first its operators,
then the run directory (and its MLflow run, `integrations.mlflow.prune`). Nothing is removed that is
not what an audit wrote: what was changed is evidence, and what lies at a place that a ledger names
need not be a run directory at all.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, exists, func, select

from poisonwatch.errors import PoisonwatchError
from poisonwatch.keep_config import KeepConfig
from poisonwatch.ledger.audit_records import RUN_DIRECTORY, find_audit_record
from poisonwatch.ledger.history import HAD_ROWS, IS_UNDECIDED
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.prunings import OPERATORS, find_pruned
from poisonwatch.ledger.tables import audits, deliveries, flags, results, rows
from poisonwatch.ledger.transactions import retried
from poisonwatch.run_directory.checksums import list_differences
from poisonwatch.run_directory.discovery import get_later_path
from poisonwatch.run_directory.layout import OPERATORS_FILE, read_summary

# Of an audit that is "committed" the run directory is on its way to its place, or elsewhere.
ENDED_STATES = ("finished", "interrupted")
PRUNED_SUFFIX = ".pruned"  # of a run directory that is being removed
LAST = "among the last"
YOUNG = "too young"
CHAMPION = "the champion's"
UNDECIDED = "with flagged rows that nobody decided on"
RELEASED = "a release leans on"
OWED = "somebody is still to be told of"
CHANGED = "not as the audit wrote it (poisonwatch verify)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A part (RUN_DIRECTORY or OPERATORS) of an audit that goes, in bytes; `on_record` where an
    earlier prune said so, and broke off.
    """

    audit_id: str
    part: str
    path: Path
    bytes: int
    seal: str | None
    on_record: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """What goes, what an earlier prune left half-removed (`leftovers`: folders and files), and how
    many run directories stay for which reason. `audit_ids` are those of all audits of which nothing
    needs to stay, wherever their run directories are.
    """

    removals: Sequence[Removal]
    leftovers: Sequence[Path]
    kept: Mapping[str, int]
    audit_ids: frozenset[str]

    def count(self, part: str) -> tuple[int, int]:
        """How many of a part go, and their bytes."""
        sizes = [removal.bytes for removal in self.removals if removal.part == part]
        return len(sizes), sum(sizes)


@dataclass(frozen=True, slots=True)
class _Past:
    """An audit that has ended."""

    number: int
    audit_id: str
    run_dir: Path
    finished_at: str
    had_rows: bool


@retried
def plan_pruning(
    ledger: Ledger, name: str, keep: KeepConfig, champions: Collection[str] = ()
) -> PruningPlan:
    """Look through the audits of a name; nothing is changed. `champions` are the ids of audits
    whose operators answer questions now.
    """
    with ledger.read() as connection:
        past = _list_past(connection, name)
        reasons = _find_reasons(connection, past, keep, champions)
        here = [audit for audit in past if audit.run_dir.is_dir()]
        ids = [audit.audit_id for audit in past]
        gone = find_pruned(connection, ids)
        without = find_pruned(connection, ids, OPERATORS)
        removals, kept = [], Counter[str]()
        with_operators = 0
        changed: set[str] = set()
        for audit in here:
            has_operators = (audit.run_dir / OPERATORS_FILE).is_file()
            with_operators += has_operators
            reason = reasons.get(audit.audit_id)
            part, path = RUN_DIRECTORY, audit.run_dir
            on_record = audit.audit_id in gone
            if reason is not None:
                kept[reason] += 1
                part, path = OPERATORS, audit.run_dir / OPERATORS_FILE
                on_record = audit.audit_id in without
                spared = reason in (CHAMPION, OWED) or with_operators <= keep.operators
                if spared or not has_operators:
                    continue
            seal = _find_seal(connection, audit.audit_id)
            if not _is_own(audit, seal, audit.audit_id in without):
                if part == RUN_DIRECTORY:
                    kept[CHANGED] += 1
                    changed.add(audit.audit_id)
                continue
            removal = Removal(
                audit_id=audit.audit_id,
                part=part,
                path=path,
                bytes=count_bytes(path),
                seal=seal,
                on_record=on_record,
            )
            removals.append(removal)
    leftovers = []
    for audit in past:
        if audit.audit_id in gone:
            leftovers += _list_leftovers(audit.run_dir)
    return PruningPlan(
        removals=removals,
        leftovers=leftovers,
        kept=dict(kept),
        audit_ids=frozenset(ids) - reasons.keys() - changed,
    )


def get_pruned_path(run_dir: Path) -> Path:
    """What a run directory is called while it is removed."""
    return run_dir.with_name(f"{run_dir.name}{PRUNED_SUFFIX}")


def _list_leftovers(run_dir: Path) -> list[Path]:
    """What is left of a run directory where its removal broke off: itself, renamed away, and what
    was discovered of it later.
    """
    away, later = get_pruned_path(run_dir), get_later_path(run_dir)
    found = []
    if away.is_dir() and not away.is_symlink():
        found.append(away)
    # Beside one that is there, it goes with it.
    if later.is_file() and not run_dir.is_dir():
        found.append(later)
    return found


def count_bytes(path: Path) -> int:
    """What a file, or all files of a folder, take; links count for nothing."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            file = Path(place, name)
            if file.is_file() and not file.is_symlink():
                total += file.stat().st_size
    return total


def _list_past(connection: Connection, name: str) -> list[_Past]:
    """The audits of a name that have ended, newest first."""
    query = (
        select(audits.c.audit, audits.c.audit_id, audits.c.run_dir, audits.c.finished_at, HAD_ROWS)
        .where(audits.c.name == name, audits.c.state.in_(ENDED_STATES))
        .order_by(audits.c.audit.desc())
    )
    past = []
    for number, audit_id, run_dir, finished_at, had_rows in connection.execute(query).tuples():
        past.append(_Past(number, audit_id, Path(run_dir), finished_at or "", bool(had_rows)))
    return past


def _find_reasons(
    connection: Connection, past: Sequence[_Past], keep: KeepConfig, champions: Collection[str]
) -> dict[str, str]:
    """Why audits stay, by id; those that nothing holds are left out."""
    since = (datetime.now(UTC) - timedelta(days=keep.days)).isoformat(timespec="seconds")
    reasons: dict[str, str] = {}
    with_rows = [audit for audit in past if audit.had_rows]
    by_number = {audit.number: audit.audit_id for audit in past}
    for audit in with_rows[: keep.audits]:
        reasons[audit.audit_id] = LAST
    for audit in past:
        if audit.finished_at > since:
            reasons.setdefault(audit.audit_id, YOUNG)
    # Told first, since nothing that a person sets changes it.
    left = [audit.number for audit in past if audit.audit_id not in reasons]
    for number in _find_undecided(connection, left):
        reasons[by_number[number]] = UNDECIDED
    for number in _find_owed(connection, by_number):
        reasons[by_number[number]] = OWED
    if keep.released:
        left = [audit.number for audit in past if audit.audit_id not in reasons]
        for number in _find_released(connection, left):
            reasons[by_number[number]] = RELEASED
    for audit in past:
        if audit.audit_id in champions:
            reasons[audit.audit_id] = CHAMPION
    return reasons


def _find_undecided(connection: Connection, numbers: Iterable[int]) -> set[int]:
    """Those of these audits that flagged a row which nobody has decided on."""
    found: set[int] = set()
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = (
            select(flags.c.audit)
            .join(rows, rows.c.row == flags.c.row)
            .where(flags.c.audit.in_(some), IS_UNDECIDED)
        )
        found.update(connection.execute(query.distinct()).scalars())
    return found


def _find_owed(connection: Connection, numbers: Collection[int]) -> set[int]:
    """Those of these audits of which an account, or a message, is still to go out."""
    query = select(deliveries.c.audit).where(deliveries.c.delivered_at.is_(None)).distinct()
    return set(connection.execute(query).scalars()) & set(numbers)


def _find_released(connection: Connection, numbers: Iterable[int]) -> set[int]:
    """Those of these audits that had the last word on a row which was released."""
    later = results.alias()
    last = select(func.max(later.c.audit)).where(later.c.row == results.c.row)
    released = exists().where(
        results.c.audit == audits.c.audit,
        rows.c.row == results.c.row,
        rows.c.status == "released",
        results.c.audit == last.scalar_subquery(),
    )
    found: set[int] = set()
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = select(audits.c.audit).where(audits.c.audit.in_(some), released)
        found.update(connection.execute(query).scalars())
    return found


def _find_seal(connection: Connection, audit_id: str) -> str | None:
    record = find_audit_record(connection, audit_id)
    return None if record is None else record.statement.subjects.get(RUN_DIRECTORY)


def _is_own(audit: _Past, seal: str | None, without_operators: bool) -> bool:
    """Whether a run directory is the audit's, and as it wrote it but for operators that were
    pruned.
    """
    if audit.run_dir.is_symlink():
        return False
    summary = read_summary(audit.run_dir)
    if summary is None or summary.get("audit_id") != audit.audit_id:
        return False
    try:
        changed = [file.name for file in list_differences(audit.run_dir, seal)]
    except PoisonwatchError:
        return False
    return not changed or (without_operators and changed == [OPERATORS_FILE])
