from mlflow.exceptions import MlflowException
from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import (
    UNAVAILABLE,
    find_or_create_experiment,
    find_or_create_run,
    list_run_ids,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.upload import upload_audit
from poisonwatch.ledger.history import list_pending_audits, mark_audit_delivered
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT


@task(**TRIED_NEXT_AUDIT)
def open_run(config: AuditConfig, audit_id: str, kind: str = "audit") -> dict[str, str]:
    """Create the MLflow run of an audit (or a drill): the ids that its summary is to name.

    Raises OperationError where the server cannot be used.
    """
    try:
        client = make_mlflow_client(config)
        run = find_or_create_run(
            client,
            find_or_create_experiment(client, config),
            {"poisonwatch.audit_id": audit_id, "poisonwatch.kind": kind},
            audit_id,
        )
        return list_run_ids(run)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from error


@task(**TRIED_NEXT_AUDIT)
def track(ledger: Ledger, config: AuditConfig) -> int:
    """Fill and close the MLflow run of every audit that owes it, oldest first: how many.

    Ids of run and experiment go into the ledger's summary and the run directory's. An audit that
    MLflow refuses does not keep back those after it. Raises OperationError where the server cannot
    be used, or refused something.
    """
    owing = list_pending_audits(ledger, config.name, MLFLOW)
    refused: MlflowException | None = None
    try:
        client = make_mlflow_client(config)
        for past in owing:
            try:
                mark_audit_delivered(
                    ledger, past.number, MLFLOW, upload_audit(client, config, ledger, past)
                )
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                refused = refused or error
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from error
    if refused is not None:
        raise make_mlflow_error(config, "refused an audit", refused) from refused
    return len(owing)
