"""Removal by a plan. What goes is on record before anything is removed; a run directory is renamed
away and then deleted, so that nobody meets half of one. A prune that breaks off at any line is
completed by the next.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from poisonwatch.atomic import sync_folder
from poisonwatch.keep_config import KeepConfig
from poisonwatch.ledger.audit_records import RUN_DIRECTORY
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.prunings import append_pruned
from poisonwatch.ledger.records import lock_chain
from poisonwatch.ledger.transactions import retried
from poisonwatch.pruning.plan import PruningPlan, Removal, get_pruned_path
from poisonwatch.run_directory.discovery import get_later_path


def carry_out(ledger: Ledger, plan: PruningPlan, keep: KeepConfig) -> list[str]:
    """Record and remove what goes by a plan, while no audit is at work (`Ledger.lock`): a line for
    each part that could not be removed. Raises what recording raises; then nothing is removed.
    """
    _record(ledger, plan.removals, keep)
    steps: list[tuple[Path, Callable[[], None]]] = []
    for leftover in plan.leftovers:
        steps.append((leftover, partial(_remove_leftover, leftover)))
    for removal in plan.removals:
        steps.append((removal.path, partial(_remove, removal)))
    failures: list[str] = []
    for path, remove in steps:
        try:
            remove()
        # One that cannot be removed keeps none of the others.
        except OSError as error:
            failures.append(f"{path} cannot be removed: {error.strerror}")
    return failures


@retried
def _record(ledger: Ledger, removals: Sequence[Removal], keep: KeepConfig) -> None:
    new = [removal for removal in removals if not removal.on_record]
    if not new:
        return
    with ledger.write() as connection:
        lock_chain(connection)
        for removal in new:
            said = {"keep": keep.model_dump(mode="json"), "bytes": removal.bytes}
            append_pruned(
                connection, removal.audit_id, removal.part, removal.seal, said, ledger.signer
            )


def _remove_leftover(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove(removal: Removal) -> None:
    if removal.part != RUN_DIRECTORY:
        removal.path.unlink(missing_ok=True)
        sync_folder(removal.path.parent)
        return
    away = get_pruned_path(removal.path)
    removal.path.rename(away)
    sync_folder(away.parent)
    shutil.rmtree(away)
    # What was looked for later tells of the same rows, and lies beside it.
    get_later_path(removal.path).unlink(missing_ok=True)
