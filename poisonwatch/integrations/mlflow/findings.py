"""What was discovered in an audit's rows once the audit had ended, beside its run in MLflow: as an
audit's own discovery is there, but that the file is in a folder of its own. The audit's files stay
what its SHA256SUMS says.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mlflow import MlflowClient

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
from poisonwatch.integrations.mlflow.runs import find_or_create_experiment, find_tagged_runs
from poisonwatch.integrations.mlflow.upload import extend_trend
from poisonwatch.integrations.mlflow.values import log_values
from poisonwatch.ledger.findings import mark_finding_delivered
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.reports.discovery import summarise_discovery
from poisonwatch.run_directory.discovery import DISCOVERY_FILE, get_later_path, read_discovery

LATER_FOLDER = "later"  # of a run's artifacts
METRICS = ("groups_discovered", "groups_new")


def upload_findings(ledger: Ledger, config: AuditConfig, pending: Sequence[PastAudit]) -> None:
    """Put what was discovered later beside the runs of these audits. Raises OperationError where
    the server cannot be used.
    """
    try:
        client = make_mlflow_client(config)
        experiment_id = find_or_create_experiment(client, config)
        for past in pending:
            _upload(client, experiment_id, past)
            mark_finding_delivered(ledger, past.number)
    except ArtifactsError as error:
        raise make_artifacts_error(config, error) from None
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from None


def _upload(client: MlflowClient, experiment_id: str, past: PastAudit) -> None:
    """Nothing where the audit's run is gone, or what was found: on another machine it is not."""
    path = get_later_path(past.run_dir)
    report = read_discovery(past.run_dir) if path.is_file() else None
    if report is None:
        return
    found = summarise_discovery(report)
    assert found is not None
    # As old as the file: what is sent twice is there once.
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    summary = {**past.summary, "discovery": found, "created": at}
    tags = {"poisonwatch.audit_id": past.audit_id, "poisonwatch.kind": "audit"}
    for run in find_tagged_runs(client, experiment_id, tags):
        values = dict(zip(METRICS, (found["found"], found["new"]), strict=True))
        log_values(client, run.info.run_id, at, metrics=values)
        with using_artifacts(run.info.artifact_uri):
            text = path.read_text(encoding="utf-8")
            client.log_text(run.info.run_id, text, f"{LATER_FOLDER}/{DISCOVERY_FILE}")
    extend_trend(client, experiment_id, replace(past, summary=summary), METRICS)
