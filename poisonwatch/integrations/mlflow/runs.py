"""Audits in MLflow: an experiment for each name, a run for each audit, one run `trend` over all of them, and the operators as a model.

Only `MlflowClient` with an explicit run id is used: the fluent API keeps its active run per thread, and tasks may run in any.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from prefect import task
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.registry import enrol
from poisonwatch.integrations.mlflow.upload import fill, headline, millis, send
from poisonwatch.ledger.history import MLFLOW, PastAudit, debtors, settle
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks import OWED
from poisonwatch.text.display import first_line
from poisonwatch.text.environment import conceal, expand

UNAVAILABLE = (MlflowException, SQLAlchemyError, OSError)

# MLflow's own patience with a server that is down is four minutes a request; what an audit owes is sent with the next one.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a server's address may hold a password

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
# Every retry would be a warning on the terminal; what fails is said once, at the end.
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: "/mlflow" not in record.getMessage())


def mlflow_client(config: AuditConfig) -> MlflowClient:
    """A client of the audit's tracking server, whose model registry is used too, whatever this process or its environment have set."""
    uri = expand(config.tracking, "tracking")
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def mlflow_trouble(config: AuditConfig, what: str, error: BaseException) -> OperationError:
    """What MLflow did, without secrets, as an error to be raised."""
    if "Max retries exceeded" in str(error):
        return OperationError(
            f"MLflow at {conceal(config.tracking)} cannot be reached: start it, and `poisonwatch sync` tells it what it missed"
        )
    return OperationError(f"MLflow at {conceal(config.tracking)} {what}: {conceal(first_line(error), config.tracking)}")


@task(**OWED)
def open_run(config: AuditConfig, audit_id: str, kind: str = "audit") -> dict[str, str]:
    """Create the MLflow run of an audit (or a drill): the ids that its summary is to name.

    Raises OperationError where the server cannot be used.
    """
    try:
        client = mlflow_client(config)
        run = find_run(client, experiment_of(client, config), {"poisonwatch.audit_id": audit_id, "poisonwatch.kind": kind}, audit_id)
        return _ids(run)
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "cannot be used", error) from error


@task(**OWED)
def track(ledger: Ledger, config: AuditConfig) -> int:
    """Fill and close the MLflow run of every audit that owes it, oldest first: how many.

    Ids of run and experiment go into the ledger's summary and the run directory's. An audit that MLflow refuses does not keep back those
    after it. Raises OperationError where the server cannot be used, or refused something.
    """
    owing = debtors(ledger, config.name, MLFLOW)
    refused: MlflowException | None = None
    try:
        client = mlflow_client(config)
        for past in owing:
            try:
                settle(ledger, past.number, MLFLOW, _account(client, config, ledger, past))
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                refused = refused or error
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "failed", error) from error
    if refused is not None:
        raise mlflow_trouble(config, "refused an audit", refused) from refused
    return len(owing)


def _account(client: MlflowClient, config: AuditConfig, ledger: Ledger, past: PastAudit) -> dict[str, Any]:
    """Bring an audit's run to its end, and everything that follows from it: the ids that its summary is to name."""
    experiment_id = experiment_of(client, config)
    tags = {"poisonwatch.audit_id": past.audit_id, "poisonwatch.kind": "audit"}
    if not past.came_to_results:
        for run in _runs(client, experiment_id, tags):
            client.set_tag(run.info.run_id, "poisonwatch.state", past.state)
            _close(client, run, past, "KILLED")
        return {}
    run = find_run(client, experiment_id, tags, past.audit_id, past.started_at)
    run_id = str(run.info.run_id)
    ids = _ids(run)
    past = replace(past, summary={**past.summary, **ids})
    _renew_summary(past.run_dir / "summary.json", ids)
    fill(client, run_id, past, ledger, config)
    enrol(client, experiment_id, run_id, past)
    _close(client, run, past, "FINISHED")
    _extend_trend(client, experiment_id, past)
    return ids


def _ids(run: Run) -> dict[str, str]:
    return {"mlflow_run_id": str(run.info.run_id), "mlflow_experiment_id": str(run.info.experiment_id)}


def _renew_summary(path: Path, ids: Mapping[str, str]) -> None:
    """Name the run in the run directory's summary, which was written before there was one, or by an audit that found no server."""
    if not path.exists():
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    if any(written.get(key) != value for key, value in ids.items()):
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps({**written, **ids}, indent=2) + "\n", encoding="utf-8")
        part.rename(path)


def _close(client: MlflowClient, run: Run, past: PastAudit, status: str) -> None:
    end = None if past.finished_at is None else max(millis(past.finished_at), run.info.start_time)  # the ledger counts whole seconds
    client.set_terminated(run.info.run_id, status, end_time=end)


def _extend_trend(client: MlflowClient, experiment_id: str, past: PastAudit) -> None:
    """One point more in each chart of the experiment's long-lived run: its step is the audit's number in the ledger."""
    at = past.summary["created"]
    run_id = find_run(client, experiment_id, {"poisonwatch.kind": "trend"}, "trend", at).info.run_id
    note = {
        MLFLOW_RUN_NOTE: "One point an audit, at the audit's number in the ledger. `calibration` is expected at .05, `flag_rate` near 0."
    }
    send(client, run_id, at, headline(past.summary), tags=note, step=past.number)
    client.set_terminated(run_id, "FINISHED", end_time=millis(at))


def experiment_of(client: MlflowClient, config: AuditConfig) -> str:
    """The id of the experiment named like the audit, created where there is none."""
    experiment = client.get_experiment_by_name(config.name)
    return str(experiment.experiment_id if experiment else client.create_experiment(config.name, _artifacts_beside(config)))


def find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], name: str, started_at: str | None = None) -> Run:
    """The run with these tags, created where there is none: a second call after a crash, or a lost answer, finds that of the first."""
    for run in _runs(client, experiment_id, tags):
        return run
    return client.create_run(experiment_id, run_name=name, tags=dict(tags), start_time=None if started_at is None else millis(started_at))


def _runs(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    yield from client.search_runs([experiment_id], wanted, max_results=1)


def _artifacts_beside(config: AuditConfig) -> str | None:
    """Artifacts of a SQLite store lie in `mlartifacts` next to it; a server decides for itself."""
    tracking = expand(config.tracking, "tracking")
    if not tracking.startswith("sqlite:///"):
        return None
    return (Path(tracking.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
