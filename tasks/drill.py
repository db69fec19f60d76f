"""Plant known poison, audit, and keep what was found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.time import get_current_time_millis
from prefect import task

from poisonwatch import drill, runs
from poisonwatch.config import AuditConfig
from poisonwatch.drill import Drill, Plan, Planted, Rehearsal
from poisonwatch.examples import Example
from poisonwatch.pretrained import Pretrained
from poisonwatch.progress import Progress
from poisonwatch.tasks import OUTSIDE, PLAIN
from poisonwatch.tasks.tracking import UNAVAILABLE, mlflow_client, mlflow_trouble


@task(**PLAIN)
def plant(model: Pretrained, clean: list[Example], trusted: list[Example], config: AuditConfig, plan: Plan) -> Planted:
    """Carry out the attacks of the plan on the clean rows."""
    return drill.plant(model, clean, trusted, config, plan)


@task(**PLAIN)
def fit_planted(model: Pretrained, planted: Planted, config: AuditConfig, progress: Progress) -> Rehearsal:
    """Fit one operator a row, planted ones included."""
    return Rehearsal(model, planted, config, progress)


@task(**PLAIN)
def rehearse(rehearsal: Rehearsal, plan: Plan, progress: Progress) -> Drill:
    """Audit the clean rows with each draw of each attack among them."""
    return rehearsal.run(plan, progress)


@task(**PLAIN)
def record_drill(folder: Path, config: AuditConfig, report: Mapping[str, Any]) -> None:
    """Write the run directory's files."""
    runs.write_config(folder, config)
    (folder / "drill.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@task(**OUTSIDE)
def track_drill(config: AuditConfig, report: Mapping[str, Any], folder: Path) -> None:
    """Fill and close the drill's MLflow run. Raises OperationError where the server cannot be used."""
    run_id, now = report["mlflow_run_id"], get_current_time_millis()
    values = {"false_flags": report["false_flags_per_1000"]}
    for power in report["powers"]:
        values |= {f"{name}.{power['recipe']}.{power['count']}": power[name] for name in ("recall", "probability", "false_flags")}
    values |= {f"rows_{name}": count for name, count in report["rows"].items()}
    values |= {f"seconds.{stage['name']}": stage["seconds"] for stage in report["stages"]}
    params = {**report["plan"], "seed": report["seed"], "model": report["model"]["name"]}
    tags = {"mlflow.note.content": "\n\n".join(report["sentences"]), "poisonwatch.version": report["version"]}
    try:
        client = mlflow_client(config)
        client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), now, 0) for name, value in values.items()],
            params=[Param(name, str(value)) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        for name in ("config.yaml", "drill.json"):
            client.log_artifact(run_id, str(folder / name))
        client.set_terminated(run_id, "FINISHED")
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "failed", error) from error
