"""MLflow runs of audits and drills of which nothing needs to stay: deleted with their artifacts.

What remains is each run's line in MLflow's database, marked as deleted, until `mlflow gc`.
"""

from collections.abc import Collection, Iterator

from mlflow import MlflowClient
from mlflow.entities import FileInfo, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow import registry
from poisonwatch.integrations.mlflow.artifacts import (
    ArtifactsError,
    delete_artifacts,
    make_artifacts_error,
    using_artifacts,
)
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.prunable import AUDIT_ID, RunTotals

RUNS_PER_PAGE = 1000


def find_champions(config: AuditConfig) -> set[str]:
    """The ids of the audits of a name whose operators carry an alias in MLflow. Raises
    OperationError where the server cannot be used.
    """
    try:
        return registry.find_champions(make_mlflow_client(config), config.name)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from None


def prune_runs(config: AuditConfig, audit_ids: Collection[str], delete: bool) -> RunTotals:
    """The MLflow runs of these audits and drills, which are deleted with their artifacts where
    `delete` says so. Raises OperationError where the server cannot be used.
    """
    count = total = 0
    try:
        client = make_mlflow_client(config)
        for run in _find_runs(client, config.name, audit_ids):
            count += 1
            with using_artifacts(run.info.artifact_uri):
                total += _count_bytes(client, run.info.run_id)
            if delete:
                _delete_run(client, run)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from None
    except ArtifactsError as error:
        then = "`poisonwatch prune` goes on where it stopped"
        raise make_artifacts_error(config, error, then) from None
    return RunTotals(count, total)


def _find_runs(client: MlflowClient, name: str, audit_ids: Collection[str]) -> list[Run]:
    """The runs of these audits, and those of these drills, each after the runs inside it: what
    breaks off is found again by its drill.
    """
    audits_and_drills: list[Run] = []
    for kind in ("audit", "drill"):
        for run in _list_runs(client, name, kind):
            if run.data.tags.get(AUDIT_ID) in audit_ids:
                audits_and_drills.append(run)
    ids = {run.info.run_id for run in audits_and_drills}
    inside = []
    for run in _list_runs(client, name, "drilled"):
        if run.data.tags.get(MLFLOW_PARENT_RUN_ID) in ids:
            inside.append(run)
    return [*inside, *audits_and_drills]


def _list_runs(client: MlflowClient, name: str, kind: str) -> Iterator[Run]:
    """The runs of a kind, oldest first."""
    experiment = client.get_experiment_by_name(name)
    token: str | None = None
    while experiment is not None:
        page = client.search_runs(
            [experiment.experiment_id],
            f"tags.`poisonwatch.kind` = '{kind}'",
            order_by=["attributes.start_time ASC"],
            max_results=RUNS_PER_PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _count_bytes(client: MlflowClient, run_id: str) -> int:
    """What a run's artifacts take."""
    total, folders = 0, [""]
    while folders:
        listed: list[FileInfo] = client.list_artifacts(run_id, folders.pop() or None)
        for entry in listed:
            if entry.is_dir:
                folders.append(entry.path)
            else:
                total += entry.file_size or 0
    return total


def _delete_run(client: MlflowClient, run: Run) -> None:
    # Files first and the run last: what breaks off is finished with the next prune.
    delete_artifacts(client, str(run.info.artifact_uri), f"run {run.info.run_id}")
    client.delete_run(run.info.run_id)
