from mlflow.exceptions import MlflowException
from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import UNAVAILABLE, _ids, experiment_of, find_run, mlflow_client, mlflow_trouble
from poisonwatch.integrations.mlflow.upload import _account
from poisonwatch.ledger.history import debtors, settle
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.tasks.options import OWED


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
