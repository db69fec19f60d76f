"""A drill in MLflow: its run, with a run inside it for each attack and count."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.artifacts import (
    ArtifactsError,
    make_artifacts_error,
    using_artifacts,
)
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.runs import (
    find_or_create_experiment,
    find_or_create_run,
    to_milliseconds,
)
from poisonwatch.integrations.mlflow.values import log_values


def upload_drill(config: AuditConfig, report: Mapping[str, Any], folder: Path) -> None:
    """Fill and close the drill's MLflow run, with a run inside it for each attack and count.

    Raises OperationError where the server cannot be used.
    """
    run_id = report["mlflow_run_id"]
    try:
        client = make_mlflow_client(config)
        log_values(
            client,
            run_id,
            report["created"],
            metrics=_collect_metrics(report),
            params=_collect_params(report),
            tags=_build_tags(config, report),
        )
        for power in report["powers"]:
            _upload_power(client, config, report, power)
        with using_artifacts(client.get_run(run_id).info.artifact_uri):
            for name in ("config.yaml", "drill.json"):
                client.log_artifact(run_id, str(folder / name))
        # Last: a run that is not finished is one that lacks something.
        client.set_terminated(run_id, "FINISHED")
    except ArtifactsError as error:
        raise make_artifacts_error(config, error) from None
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from None


def _collect_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    values = {"false_flags": report["false_flags_per_1000"]}
    for power in report["powers"]:
        for name in ("recall", "probability", "false_flags"):
            values[f"{name}.{_name_power(power)}"] = power[name]
    for name, count in report["rows"].items():
        values[f"rows_{name}"] = count
    for stage in report["stages"]:
        values[f"seconds.{stage['name']}"] = stage["seconds"]
    return values


def _name_power(power: Mapping[str, Any]) -> str:
    """RECIPE.COUNT of audits with the user's sentinels, RECIPE.COUNT.with_pack of others."""
    name = f"{power['recipe']}.{power['count']}"
    if power["with_pack"]:
        name += ".with_pack"
    return name


def _collect_params(report: Mapping[str, Any]) -> dict[str, Any]:
    plan = report["plan"]
    return {
        "recipes": ", ".join(plan["recipes"]),
        "counts": ", ".join(map(str, plan["counts"])),
        "repeats": plan["repeats"],
        "seed": report["seed"],
        "model": report["model"]["name"],
    }


def _build_tags(config: AuditConfig, report: Mapping[str, Any]) -> dict[str, str]:
    return {
        MLFLOW_RUN_NOTE: "\n\n".join(report["sentences"]),
        "poisonwatch.version": report["version"],
        "poisonwatch.model": report["model"]["fingerprint"],
        "poisonwatch.model_name": report["model"]["name"],
        "poisonwatch.data": report["data_fingerprint"],
        "poisonwatch.source": config.source.address,
    }


def _upload_power(
    client: MlflowClient, config: AuditConfig, report: Mapping[str, Any], power: Mapping[str, Any]
) -> None:
    """The run of one attack and count, inside the drill's."""
    tags = {
        MLFLOW_PARENT_RUN_ID: report["mlflow_run_id"],
        # Not "drill": the list of drills would show each of its parts as one.
        "poisonwatch.kind": "drilled",
        "poisonwatch.recipe": power["recipe"],
        "poisonwatch.count": str(power["count"]),
        "poisonwatch.with_pack": str(power["with_pack"]).lower(),
    }
    at = report["created"]
    experiment_id = find_or_create_experiment(client, config)
    title = f"{power['recipe']} x {power['count']}"
    if power["with_pack"]:
        title += " with pack"
    run = find_or_create_run(client, experiment_id, tags, name=title, started_at=at)
    metrics = {
        "recall": power["recall"],
        "attributed": power["recall_by_attribution"],
        "probability": power["probability"],
        "false_flags": power["false_flags"],
    }
    params = {name: power[name] for name in ("recipe", "pack", "with_pack", "count", "repeats")}
    log_values(client, run.info.run_id, at, metrics=metrics, params=params)
    client.set_terminated(run.info.run_id, "FINISHED", end_time=to_milliseconds(at))
