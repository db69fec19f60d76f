"""Audits in MLflow: a run is opened before the audit starts, and filled once it has its results."""

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.owed import upload_owed
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT, task


@task(**TRIED_NEXT_AUDIT)
def open_run(config: AuditConfig, audit_id: str, kind: str = "audit") -> dict[str, str]:
    """Create the MLflow run of an audit (or a drill): the ids that its summary is to name.

    Raises OperationError where the server cannot be used.
    """
    if config.tracking is None:
        return {}
    # MLflow takes more than two seconds to import, and is often owed nothing
    from poisonwatch.integrations.mlflow.runs import open_audit_run

    return open_audit_run(config, audit_id, kind)


@task(**TRIED_NEXT_AUDIT)
def track(ledger: Ledger, config: AuditConfig) -> int:
    """Fill and close the MLflow run of every audit that owes it, oldest first: how many.

    Raises OperationError where the server cannot be used, or refused something.
    """
    if config.tracking is None:
        return 0
    return upload_owed(ledger, config)
