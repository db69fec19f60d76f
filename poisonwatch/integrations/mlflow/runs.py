"""Audits in MLflow: an experiment for each name, a run for each audit, one run `trend` over all of
them, and the operators as a model.

Only `MlflowClient` with an explicit run id is used: the fluent API keeps its active run per thread,
and tasks may run in any.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from prefect import task
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.ledger.history import PastAudit
from poisonwatch.reports.links import make_mlflow_run_url
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT
from poisonwatch.text.display import get_first_line
from poisonwatch.text.environment import conceal, expand_variables

UNAVAILABLE = (MlflowException, SQLAlchemyError, OSError)

# MLflow's own patience with a server that is down is four minutes a request; what an audit owes is
# sent with the next one.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault(
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
)  # a server's address may hold a password

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
# Every retry would be a warning on the terminal; what fails is said once, at the end.
logging.getLogger("urllib3.connectionpool").addFilter(
    lambda record: "/mlflow" not in record.getMessage()
)


def make_mlflow_client(config: AuditConfig) -> MlflowClient:
    """A client of the audit's tracking server, whose model registry is used too, whatever this
    process or its environment have set.
    """
    uri = expand_variables(config.tracking, "tracking")
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def make_mlflow_error(config: AuditConfig, what: str, error: BaseException) -> OperationError:
    """What MLflow did, without secrets, as an error to be raised."""
    if "Max retries exceeded" in str(error):
        return OperationError(
            f"MLflow at {conceal(config.tracking)} cannot be reached: start it, and `poisonwatch sync` tells it what it missed"
        )
    return OperationError(
        f"MLflow at {conceal(config.tracking)} {what}: {conceal(get_first_line(error), config.tracking)}"
    )


def list_run_ids(run: Run) -> dict[str, str]:
    return {
        "mlflow_run_id": str(run.info.run_id),
        "mlflow_experiment_id": str(run.info.experiment_id),
    }


def close_run(client: MlflowClient, run: Run, past: PastAudit, status: str) -> None:
    end = (
        None
        if past.finished_at is None
        else max(to_milliseconds(past.finished_at), run.info.start_time)
    )  # the ledger counts whole seconds
    client.set_terminated(run.info.run_id, status, end_time=end)


def find_or_create_experiment(client: MlflowClient, config: AuditConfig) -> str:
    """The id of the experiment named like the audit, created where there is none."""
    experiment = client.get_experiment_by_name(config.name)
    return str(
        experiment.experiment_id
        if experiment
        else client.create_experiment(config.name, _locate_artifacts(config))
    )


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
    return client.create_run(
        experiment_id,
        run_name=name,
        tags=dict(tags),
        start_time=None if started_at is None else to_milliseconds(started_at),
    )


def find_tagged_runs(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str]
) -> Iterator[Run]:
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    yield from client.search_runs([experiment_id], wanted, max_results=1)


def _locate_artifacts(config: AuditConfig) -> str | None:
    """Artifacts of a SQLite store lie in `mlartifacts` next to it; a server decides for itself."""
    tracking = expand_variables(config.tracking, "tracking")
    if not tracking.startswith("sqlite:///"):
        return None
    return (Path(tracking.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An audit's MLflow run. `started` is in milliseconds since 1970, `flagged` None where the run
    does not say.
    """

    audit_id: str
    run_id: str
    status: str
    started: int
    flagged: int | None
    url: str | None


@task(**TRIED_NEXT_AUDIT)
def list_tracked_runs(config: AuditConfig, most: int) -> dict[str, TrackedRun]:
    """The latest audits of a name in MLflow, by audit id. Raises OperationError where the server
    cannot be used.
    """
    try:
        client = make_mlflow_client(config)
        experiment = client.get_experiment_by_name(config.name)
        if experiment is None:
            return {}
        runs = client.search_runs(
            [experiment.experiment_id],
            "tags.`poisonwatch.kind` = 'audit'",
            order_by=["attributes.start_time DESC"],
            max_results=most,
        )
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from error
    found = {}
    for run in runs:
        audit_id, flagged = (
            run.data.tags["poisonwatch.audit_id"],
            run.data.metrics.get("rows_flagged"),
        )
        url = make_mlflow_run_url(config, run.info.experiment_id, run.info.run_id)
        counted = None if flagged is None else int(flagged)
        found[audit_id] = TrackedRun(
            audit_id, run.info.run_id, run.info.status, run.info.start_time, counted, url
        )
    return found


def to_milliseconds(time: str) -> int:
    """A time of the ledger, or of a summary, as MLflow counts it."""
    return round(1000 * datetime.fromisoformat(time).timestamp())
