"""A probe of a tuned model in MLflow: a run in the audit's experiment."""

import json
from collections.abc import Mapping
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

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
from poisonwatch.integrations.mlflow.values import log_values
from poisonwatch.text.display import to_plain_name

KIND = "probe"  # tag of runs


def upload_probe(config: AuditConfig, report: Mapping[str, Any]) -> None:
    """Fill and close the probe's MLflow run. Raises OperationError where the server cannot be
    used.
    """
    run_id = report["mlflow_run_id"]
    try:
        client = make_mlflow_client(config)
        log_values(
            client,
            run_id,
            report["created"],
            metrics=_collect_metrics(report),
            params={"checkpoint": report["checkpoint"]["name"], "model": report["model"]["name"]},
            tags=_build_tags(report),
        )
        with using_artifacts(client.get_run(run_id).info.artifact_uri):
            client.log_text(run_id, json.dumps(report, indent=2), "probe.json")
        # Last: a run that is not finished is one that lacks something.
        client.set_terminated(run_id, "FINISHED")
    except ArtifactsError as error:
        raise make_artifacts_error(config, error) from None
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from None


def _collect_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {
        "sentinels_asked": len(report["asked"]),
        "sentinels_moved": len(report["moved"]),
    }
    metrics["panels_moved"] = len(report["moved_panels"])
    for panel in report["panels"]:
        for name in ("change", "limit"):
            metrics[f"panel_{name}.{to_plain_name(panel['panel'])}"] = panel[name]
    for asked in report["asked"]:
        sentinel = to_plain_name(asked["sentinel"])
        for name in ("change", "limit", "score"):
            metrics[f"{name}.{sentinel}"] = asked[name]
    return metrics


def _build_tags(report: Mapping[str, Any]) -> dict[str, str]:
    tags = {
        MLFLOW_RUN_NOTE: report["sentence"],
        "poisonwatch.version": report["version"],
        "poisonwatch.model": report["model"]["fingerprint"],
        "poisonwatch.checkpoint": report["checkpoint"]["fingerprint"],
        "poisonwatch.chain": report["chain"],
    }
    if report["release"] is not None:
        tags["poisonwatch.release"] = report["release"]
    return tags
