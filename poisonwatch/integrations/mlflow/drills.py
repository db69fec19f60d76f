from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import (
    find_or_create_experiment,
    find_or_create_run,
    to_milliseconds,
)
from poisonwatch.integrations.mlflow.upload import log_values


def upload_power(
    client: MlflowClient, config: AuditConfig, report: Mapping[str, Any], power: Mapping[str, Any]
) -> None:
    """The run of one attack and count, inside the drill's."""
    tags = {
        MLFLOW_PARENT_RUN_ID: report["mlflow_run_id"],
        "poisonwatch.kind": "drilled",
        "poisonwatch.recipe": power["recipe"],
        "poisonwatch.count": str(power["count"]),
    }
    at = report["created"]
    run_id = find_or_create_run(
        client,
        find_or_create_experiment(client, config),
        tags,
        f"{power['recipe']} x {power['count']}",
        at,
    ).info.run_id
    values = {
        "recall": power["recall"],
        "attributed": power["recall_by_attribution"],
        "probability": power["probability"],
        "false_flags": power["false_flags"],
    }
    log_values(
        client,
        run_id,
        at,
        values,
        {name: power[name] for name in ("recipe", "pack", "count", "repeats")},
    )
    client.set_terminated(run_id, "FINISHED", end_time=to_milliseconds(at))
