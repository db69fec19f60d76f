"""What MLflow knows of past audits."""

from dataclasses import dataclass

from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import UNAVAILABLE, mlflow_client, mlflow_trouble
from poisonwatch.reports.links import mlflow_run_url
from poisonwatch.tasks import OWED


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An audit's MLflow run. `started` is in milliseconds since 1970, `flagged` None where the run does not say."""

    audit_id: str
    run_id: str
    status: str
    started: int
    flagged: int | None
    url: str | None


@task(**OWED)
def tracked_runs(config: AuditConfig, most: int) -> dict[str, TrackedRun]:
    """The latest audits of a name in MLflow, by audit id. Raises OperationError where the server cannot be used."""
    try:
        client = mlflow_client(config)
        experiment = client.get_experiment_by_name(config.name)
        if experiment is None:
            return {}
        runs = client.search_runs(
            [experiment.experiment_id], "tags.`poisonwatch.kind` = 'audit'", order_by=["attributes.start_time DESC"], max_results=most
        )
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "cannot be used", error) from error
    found = {}
    for run in runs:
        audit_id, flagged = run.data.tags["poisonwatch.audit_id"], run.data.metrics.get("rows_flagged")
        url = mlflow_run_url(config, run.info.experiment_id, run.info.run_id)
        counted = None if flagged is None else int(flagged)
        found[audit_id] = TrackedRun(audit_id, run.info.run_id, run.info.status, run.info.start_time, counted, url)
    return found
