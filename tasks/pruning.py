"""What of past audits may go: found, and removed."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.prunable import (
    RunTotals,
    find_champions,
    find_latest_good,
    list_drills,
    prune_runs,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.pruning.drills import DrillPruning, plan_drill_pruning, remove_drills
from poisonwatch.pruning.plan import PruningPlan, plan_pruning
from poisonwatch.pruning.remove import carry_out
from poisonwatch.tasks.options import PLAIN, task


@dataclass(frozen=True, slots=True)
class PruneOutcome:
    """What goes, or went, of past audits and drills; `failures` tell in a line each what could
    not.
    """

    plan: PruningPlan
    drills: DrillPruning
    runs: RunTotals
    failures: list[str]


@task(**PLAIN)
def prune(ledger: Ledger, config: AuditConfig, remove: bool = True) -> PruneOutcome:
    """Find what the audit file's `keep` lets go, and `remove` it. Whoever calls it holds
    the lock on the audit's name.

    Where MLflow cannot be asked, its runs stay, and the ledger alone says which audit's operators
    answer questions.
    """
    failures: list[str] = []
    latest = find_latest_good(ledger, config.name)
    champions = set() if latest is None else {latest}
    tracked: dict[str, datetime] = {}
    is_reached = True
    try:
        champions |= find_champions(config)
        tracked = list_drills(config)
    except OperationError as error:
        is_reached = False
        failures.append(str(error))
    plan = plan_pruning(ledger, config.name, config.keep, champions)
    beside = None if config.replay.folder is None else Path(config.replay.folder)
    drills = plan_drill_pruning(beside, config.name, config.keep, tracked)
    if remove:
        failures += carry_out(ledger, plan, config.keep)
        failures += remove_drills(drills)
    runs = RunTotals(0, 0)
    try:
        if is_reached:
            runs = prune_runs(config, plan.audit_ids | drills.drill_ids, delete=remove)
    except OperationError as error:
        failures.append(str(error))
    return PruneOutcome(plan, drills, runs, failures)
