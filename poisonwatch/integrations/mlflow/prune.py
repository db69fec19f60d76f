"""MLflow runs of audits of which nothing needs to stay: deleted with their artifacts.

What remains is each run's line in MLflow's database, marked as deleted, until `mlflow gc`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import FileInfo, Run

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
from poisonwatch.ledger.history import (
    COMMITTED_STATES,
    HAD_ROWS,
    list_past_audits,
    list_pending_targets,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.tables import audits
from poisonwatch.text.environment import open_variables
from poisonwatch.text.sqlite_files import find_sqlite_file

RUNS_PER_PAGE = 1000
AUDITS_PER_READ = 50


@dataclass(frozen=True, slots=True)
class RunTotals:
    """So many runs, and the bytes of their artifacts."""

    runs: int
    bytes: int


def find_latest_good(ledger: Ledger, name: str) -> str | None:
    """The audit of a name whose operators are the champion's, by what the ledger alone knows; None
    where there is none.
    """
    offset, which = 0, [HAD_ROWS, audits.c.state.in_(COMMITTED_STATES)]
    while past := list_past_audits(ledger, name, AUDITS_PER_READ, offset, which):
        owed = list_pending_targets(ledger, [audit.number for audit in past])
        for audit in past:
            # What MLflow was not told yet is no champion there.
            if MLFLOW not in owed.get(audit.number, ()) and registry.is_good(audit.summary):
                return audit.audit_id
        offset += AUDITS_PER_READ
    return None


def find_champions(config: AuditConfig) -> set[str]:
    """The ids of the audits of a name whose operators carry an alias in MLflow. Raises
    OperationError where the server cannot be used.
    """
    if not _has_store(config):
        return set()
    try:
        return registry.find_champions(make_mlflow_client(config), config.name)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from None


def prune_runs(config: AuditConfig, audit_ids: Collection[str], delete: bool) -> RunTotals:
    """The MLflow runs of these audits, which are deleted with their artifacts where `delete` says
    so. Raises OperationError where the server cannot be used.
    """
    if not audit_ids or not _has_store(config):
        return RunTotals(0, 0)
    count = total = 0
    try:
        client = make_mlflow_client(config)
        for run in list(_list_runs(client, config.name, audit_ids)):
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


def _has_store(config: AuditConfig) -> bool:
    """Whether there is something to ask: to ask for a SQLite store that is not there makes one."""
    place = open_variables(config.tracking, "tracking").partition("sqlite:///")[2]
    store = find_sqlite_file(place.partition("?")[0])
    return store is None or store.is_file()


def _list_runs(client: MlflowClient, name: str, audit_ids: Collection[str]) -> Iterator[Run]:
    """The runs of these audits, oldest first."""
    experiment = client.get_experiment_by_name(name)
    token: str | None = None
    while experiment is not None:
        page = client.search_runs(
            [experiment.experiment_id],
            "tags.`poisonwatch.kind` = 'audit'",
            order_by=["attributes.start_time ASC"],
            max_results=RUNS_PER_PAGE,
            page_token=token,
        )
        for run in page:
            if run.data.tags.get("poisonwatch.audit_id") in audit_ids:
                yield run
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
