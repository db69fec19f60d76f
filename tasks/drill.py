"""Plant known poison, audit, and keep what was found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poisonwatch.config import AuditConfig
from poisonwatch.drills import planting
from poisonwatch.drills.drill import DrillRunner
from poisonwatch.drills.planting import PastVerdicts, PlantedRows
from poisonwatch.drills.results import DrillPlan, DrillResult
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.integrations.mlflow.drills import upload_drill
from poisonwatch.ledger.batches import find_benign_ids, find_suspected_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress
from poisonwatch.run_directory import write as runs
from poisonwatch.run_directory.checksums import write_checksums
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES, task


@task(**WITH_RETRIES)
def look_up_verdicts(config: AuditConfig) -> PastVerdicts:
    """What audits and people said of rows before; nothing where no audit has run."""
    try:
        with Ledger.existing(config.state) as ledger:
            suspected, benign = find_suspected_ids(ledger), find_benign_ids(ledger)
    except InputError:
        return PastVerdicts()
    return PastVerdicts(frozenset(suspected), frozenset(benign))


@task(**PLAIN)
def plant(
    model: Pretrained,
    clean: list[Example],
    trusted: list[Example],
    config: AuditConfig,
    plan: DrillPlan,
    past: PastVerdicts,
) -> PlantedRows:
    """Carry out the attacks of the plan on the clean rows."""
    return planting.plant_attacks(model, clean, trusted, config, plan, past=past)


@task(**PLAIN)
def fit_planted(
    model: Pretrained, planted: PlantedRows, config: AuditConfig, progress: Progress
) -> DrillRunner:
    """Fit one operator a row, planted ones included."""
    return DrillRunner(model, planted, config, progress)


@task(**PLAIN)
def rehearse(rehearsal: DrillRunner, plan: DrillPlan, progress: Progress) -> DrillResult:
    """Audit the clean rows with each draw of each attack among them."""
    return rehearsal.run(plan, progress)


@task(**PLAIN)
def record_drill(folder: Path, config: AuditConfig, report: Mapping[str, Any]) -> None:
    """Write the run directory's files."""
    # The settings stand beside the report: it can be done again as it was.
    runs.write_config(folder, config)
    (folder / "drill.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_checksums(folder)


@task(**WITH_RETRIES)
def track_drill(config: AuditConfig, report: Mapping[str, Any], folder: Path) -> None:
    """Fill and close the drill's MLflow run, with a run inside it for each attack and count.

    Raises OperationError where the server cannot be used.
    """
    if config.tracking is not None:
        upload_drill(config, report, folder)
