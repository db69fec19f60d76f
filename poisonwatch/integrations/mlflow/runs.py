"""Audits in MLflow: an experiment for each name, a run for each audit, and one run `trend` over all
of them.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.tracking import get_tracking, show_tracking
from poisonwatch.ledger.history import PastAudit
from poisonwatch.text.sqlite_files import find_sqlite_file

# Which of its pages MLflow opens an experiment on; where it has none, on traces, which reviews are.
KIND_TAG = "mlflow.experimentKind"
OF_RUNS = "custom_model_development"


def open_audit_run(config: AuditConfig, audit_id: str, kind: str = "audit") -> dict[str, str]:
    """Create the MLflow run of an audit (or a drill): the ids that its summary is to name.

    Raises OperationError where the server cannot be used.
    """
    tags = {"poisonwatch.audit_id": audit_id, "poisonwatch.kind": kind}
    try:
        client = make_mlflow_client(config)
        experiment_id = find_or_create_experiment(client, config)
        return list_run_ids(find_or_create_run(client, experiment_id, tags, name=audit_id))
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from None


def list_run_ids(run: Run) -> dict[str, str]:
    """The ids of a run and its experiment, under the names that they have in a summary."""
    return {
        "mlflow_run_id": str(run.info.run_id),
        "mlflow_experiment_id": str(run.info.experiment_id),
    }


def close_run(client: MlflowClient, run: Run, past: PastAudit, status: str) -> None:
    """End a run with a status, at the time at which its audit ended."""
    end = None
    if past.finished_at is not None:
        # The ledger counts whole seconds: rounded, an audit could end before its run began.
        end = max(to_milliseconds(past.finished_at), run.info.start_time)
    client.set_terminated(run.info.run_id, status, end_time=end)


def find_or_create_experiment(client: MlflowClient, config: AuditConfig) -> str:
    """The id of the experiment named like the audit, created where there is none. It opens on its
    runs, unless somebody chose otherwise.

    Raises OperationError where it was deleted: MLflow keeps it, and its name, for a while.
    """
    experiment = client.get_experiment_by_name(config.name)
    if experiment is not None and experiment.lifecycle_stage == LifecycleStage.DELETED:
        server = show_tracking(config)
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise OperationError(
            f"the experiment {config.name} was deleted in MLflow at {server}: bring it back "
            f"(MLFLOW_TRACKING_URI={server} {restore}), or give the audit another `name`"
        )
    if experiment is None:
        place = _locate_artifacts(config)
        return str(client.create_experiment(config.name, place, tags={KIND_TAG: OF_RUNS}))
    if KIND_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, OF_RUNS)
    return str(experiment.experiment_id)


def find_or_create_run(
    client: MlflowClient,
    experiment_id: str,
    tags: Mapping[str, str],
    name: str,
    started_at: str | None = None,
) -> Run:
    """The run with these tags, created where there is none: a second call after a crash, or a lost
    answer, finds that of the first.
    """
    for run in find_tagged_runs(client, experiment_id, tags):
        return run
    start = None
    if started_at is not None:
        start = to_milliseconds(started_at)
    return client.create_run(experiment_id, run_name=name, tags=dict(tags), start_time=start)


def find_tagged_runs(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str]
) -> Iterator[Run]:
    """The run with all of these tags, if there is one."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    yield from client.search_runs([experiment_id], wanted, max_results=1)


def to_milliseconds(time: str) -> int:
    """A time of the ledger, or of a summary, as MLflow counts it."""
    return round(1000 * datetime.fromisoformat(time).timestamp())


def _locate_artifacts(config: AuditConfig) -> str | None:
    """Artifacts of a SQLite store lie in `mlartifacts` next to it; a server decides for itself."""
    tracking = get_tracking(config)
    scheme, _, place = tracking.partition(":///")
    file = find_sqlite_file(place.partition("?")[0])
    if scheme != "sqlite" or file is None:
        return None
    # Left to itself MLflow takes the folder in which the audit happens to be started.
    return (file.resolve().parent / "mlartifacts").as_uri()
