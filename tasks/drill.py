"""Plant known poison, audit, and keep what was found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.drills import drill
from poisonwatch.drills.drill import DrillRunner, PlantedRows
from poisonwatch.drills.results import DrillPlan, DrillResult
from poisonwatch.examples import Example
from poisonwatch.integrations.mlflow.drills import upload_power
from poisonwatch.integrations.mlflow.runs import UNAVAILABLE, make_mlflow_client, make_mlflow_error
from poisonwatch.integrations.mlflow.upload import log_values
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress
from poisonwatch.run_directory import write as runs
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES


@task(**PLAIN)
def plant(
    model: Pretrained,
    clean: list[Example],
    trusted: list[Example],
    config: AuditConfig,
    plan: DrillPlan,
) -> PlantedRows:
    """Carry out the attacks of the plan on the clean rows."""
    return drill.plant_attacks(model, clean, trusted, config, plan)


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
    runs.write_config(folder, config)
    (folder / "drill.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@task(**WITH_RETRIES)
def track_drill(config: AuditConfig, report: Mapping[str, Any], folder: Path) -> None:
    """Fill and close the drill's MLflow run, with a run inside it for each attack and count.

    Raises OperationError where the server cannot be used.
    """
    run_id = report["mlflow_run_id"]
    values = {"false_flags": report["false_flags_per_1000"]}
    for power in report["powers"]:
        values |= {
            f"{name}.{power['recipe']}.{power['count']}": power[name]
            for name in ("recall", "probability", "false_flags")
        }
    values |= {f"rows_{name}": count for name, count in report["rows"].items()}
    values |= {f"seconds.{stage['name']}": stage["seconds"] for stage in report["stages"]}
    plan = report["plan"]
    params = {
        "recipes": ", ".join(plan["recipes"]),
        "counts": ", ".join(map(str, plan["counts"])),
        "repeats": plan["repeats"],
        "seed": report["seed"],
        "model": report["model"]["name"],
    }
    tags = {
        MLFLOW_RUN_NOTE: "\n\n".join(report["sentences"]),
        "poisonwatch.version": report["version"],
        "poisonwatch.model": report["model"]["fingerprint"],
        "poisonwatch.model_name": report["model"]["name"],
        "poisonwatch.data": report["data_fingerprint"],
        "poisonwatch.source": config.source.address,
    }
    try:
        client = make_mlflow_client(config)
        log_values(client, run_id, report["created"], values, params, tags)
        for power in report["powers"]:
            upload_power(client, config, report, power)
        for name in ("config.yaml", "drill.json"):
            client.log_artifact(run_id, str(folder / name))
        client.set_terminated(run_id, "FINISHED")
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from error
