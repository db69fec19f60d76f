"""The drill: pull, plant known poison, audit again and again, report how much was found."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from poisonwatch.atomic import open_run_folder
from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.drills.results import DEFAULT_REPEATS, DrillPlan, DrillResult
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.late_runs import cover_late_runs
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.stages import DRILL_STAGES
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.reports.summary import describe_model
from poisonwatch.run_directory.checksums import require_unchanged_settings
from poisonwatch.run_directory.layout import choose_run_dir, make_audit_id
from poisonwatch.run_directory.provenance import describe_origin, hash_data
from poisonwatch.run_directory.timing import StageCost
from poisonwatch.tasks.attribution import load_model
from poisonwatch.tasks.data import pull_all, pull_reference, validate
from poisonwatch.tasks.drill import (
    fit_planted,
    look_up_verdicts,
    plant,
    record_drill,
    rehearse,
    track_drill,
)
from poisonwatch.tasks.tracking import open_run


@dataclass(frozen=True, slots=True)
class DrillOutcome:
    """What a drill found, where it is, and what went wrong beside it (a tracking server that was
    down).
    """

    run_dir: Path
    drill: DrillResult
    warnings: list[str]


def run_drill_stages(
    config: AuditConfig, plan: DrillPlan, run_dir: Path, engine: Engine, reporter: Reporter
) -> DrillOutcome:
    """One drill, start to end: rows of the source are taken as clean, unless the ledger or an audit
    of them as they stand holds something against them. The ledger is read, and not written. Results
    are in `run_dir`, which is there whole or not at all.
    """
    drill_id = make_audit_id()
    with open_run_folder(run_dir) as folder:
        rows = engine(pull_all, config.source)
        clean = engine(validate, rows, config)
        trusted = engine(pull_reference, config, clean.examples, [])
        reporter.note_trusted(trusted)
        model = engine(load_model, config.model)
        past = engine(look_up_verdicts, config)
        planted = engine(plant, model, clean.examples, trusted.examples, config, plan, past)
        rehearsal = engine(fit_planted, model, planted, config, reporter.progress)
        found = engine(rehearse, rehearsal, plan, reporter.progress)
        # of what was measured: rows that were validated, less what the drill could not use
        counts = {
            "pulled": len(rows),
            "rejected": len(clean.rejected),
            "clean": found.clean,
            "reference": found.trusted,
            "suspected": found.suspected,
            "flagged": found.flagged,
        }
        # opened before the report is written, which names the run's ids
        tracked = engine.attempt(open_run, config, drill_id, "drill") or {}
        report = build_drill_report(
            config,
            drill_id,
            plan,
            found=found,
            counts=counts,
            fingerprint=hash_data(example.id for example in planted.clean),
            model=model,
            stages=engine.clock.costs,
        )
        report |= tracked
        engine(record_drill, folder, config, report)
        if tracked:
            engine.attempt(track_drill, config, report, folder)
    return DrillOutcome(run_dir, found, engine.warnings)


def build_drill_report(
    config: AuditConfig,
    drill_id: str,
    plan: DrillPlan,
    found: DrillResult,
    counts: dict[str, int],
    fingerprint: str,
    model: Pretrained,
    stages: Sequence[StageCost],
) -> dict[str, Any]:
    """`drill.json` without the MLflow run id, which is known last."""
    return {
        "drill_id": drill_id,
        **describe_origin(config),
        "plan": asdict(plan),
        "rows": counts,
        "model": describe_model(config.model, model.fingerprint, model.reading),
        "data_fingerprint": fingerprint,
        "false_discovery_rate": config.detection.false_discovery_rate,
        "sentences": [power.sentence for power in found.headline],
        "false_flags_per_1000": found.false_flags,
        "powers": [power.record() for power in found.powers],
        "notes": list(found.notes),
        "stages": [asdict(cost) for cost in stages],
        "mlflow_run_id": None,
        "mlflow_experiment_id": None,
    }


def drill_inline(
    config: AuditConfig, plan: DrillPlan, run_dir: Path, reporter: Reporter | None = None
) -> DrillOutcome:
    """Run a drill without Prefect."""
    secrets = config.find_secrets()
    reporter = reporter or Reporter(quiet=True, stages=DRILL_STAGES)
    engine = Engine(inline=True, secrets=secrets, enter=reporter.enter_task)
    with conceal_all(secrets):
        return run_drill_stages(config, plan, run_dir, engine=engine, reporter=reporter)


@flow(name="poisonwatch-drill", persist_result=False)
def drill(
    config: str,
    run_dir: str | None = None,
    recipes: list[str] | None = None,
    counts: list[int] | None = None,
    repeats: int = DEFAULT_REPEATS,
    seed: int | None = None,
    quiet: bool = True,
) -> DrillOutcome:
    """Drill the audit of the file `config` as a Prefect flow, leaving the results in `run_dir`, or
    in a new folder below `runs`.
    """
    settings = with_seed(load_config(config), seed)
    require_unchanged_settings(Path(config))
    folder = Path(run_dir) if run_dir else choose_run_dir(Path(config), "drill-")
    secrets = settings.find_secrets()
    with conceal_all(secrets):
        cover_late_runs()
        reporter = Reporter(quiet=quiet, stages=DRILL_STAGES)
        outcome = run_drill_stages(
            settings,
            DrillPlan.from_options(recipes, counts, repeats),
            folder,
            engine=Engine(inline=False, secrets=secrets, enter=reporter.enter_task),
            reporter=reporter,
        )
        for warning in outcome.warnings:
            get_run_logger().warning(warning)
    return outcome


def with_seed(config: AuditConfig, seed: int | None) -> AuditConfig:
    """With another seed than the audit file's, where one is given."""
    if seed is None:
        return config
    return config.model_copy(update={"seed": seed})
