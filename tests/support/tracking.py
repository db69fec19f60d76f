"""What MLflow holds of an audit, read from a store."""

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import update

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import AUDIT_KIND, MLFLOW
from poisonwatch.ledger.tables import deliveries

LAX = {"detection": {"false_discovery_rate": 0.5}}


def client_of(config: AuditConfig) -> MlflowClient:
    return MlflowClient(config.tracking, config.tracking)


def runs_of(config: AuditConfig, kind: str = "audit") -> list[Run]:
    """The runs of a kind, oldest first."""
    client = client_of(config)
    experiment = client.get_experiment_by_name(config.name)
    runs = client.search_runs([experiment.experiment_id], f"tags.`poisonwatch.kind` = '{kind}'")
    return sorted(runs, key=lambda run: int(run.info.start_time))


def held(config: AuditConfig) -> dict[str, Any]:
    """Everything in MLflow of an audit's name that a second upload could double, without the
    machine's own metrics.
    """
    client, found = client_of(config), {}
    for run in [*runs_of(config), *runs_of(config, "trend")]:
        id = run.info.run_id
        names = sorted(name for name in run.data.metrics if not name.startswith("system/"))
        found[id] = {
            "metrics": {
                name: [(p.step, p.timestamp, p.value) for p in client.get_metric_history(id, name)]
                for name in names
            },
            "params": run.data.params,
            "tags": run.data.tags,
            "datasets": sorted(
                (d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs
            ),
            "models": [output.model_id for output in run.outputs.model_outputs]
            if run.outputs
            else [],
            "files": sorted(
                item.path
                for folder in (None, "plots", "report")
                for item in client.list_artifacts(id, folder)
            ),
            "flags": _table(client, id) if "flags.json" in list_names(client, id) else None,
            "ended": (run.info.status, run.info.end_time),
        }
    return {
        "runs": found,
        "versions": [(v.name, v.version, v.tags) for v in client.search_model_versions()],
    }


def list_names(client: MlflowClient, run_id: str) -> list[str]:
    return [item.path for item in client.list_artifacts(run_id)]


def _table(client: MlflowClient, run_id: str) -> list[Any]:
    """The rows of the table of flags."""
    return list(
        json.loads(Path(client.download_artifacts(run_id, "flags.json")).read_text())["data"]
    )


def owe(ledger: Ledger) -> None:
    """As if every audit had crashed right before its delivery was marked."""
    accounts = (deliveries.c.kind == AUDIT_KIND) & (deliveries.c.target == MLFLOW)
    with ledger.write() as connection:
        connection.execute(update(deliveries).where(accounts).values(delivered_at=None))
