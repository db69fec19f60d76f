"""Bring to MLflow the audits that it does not have yet: each one's run, the operators as a model,
and a point of the trend.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.errors import RunError
from poisonwatch.integrations.mlflow.audit_run import compute_headline_metrics, fill_run
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.registry import register_operators
from poisonwatch.integrations.mlflow.runs import (
    close_run,
    find_or_create_experiment,
    find_or_create_run,
    find_tagged_runs,
    list_run_ids,
    to_milliseconds,
)
from poisonwatch.integrations.mlflow.values import log_values
from poisonwatch.ledger.history import PastAudit, list_pending_audits, mark_audit_delivered
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.run_directory.checksums import compute_seal, require_unchanged_run
from poisonwatch.run_directory.seals import find_seal

TREND_NOTE = (
    "One point an audit, at the audit's number in the ledger. "
    "`calibration` is expected at .05, `flag_rate` near 0."
)


def upload_pending(ledger: Ledger, config: AuditConfig) -> int:
    """Fill and close the MLflow run of every audit that owes it, oldest first: how many.

    Ids of run and experiment go into the ledger's summary. An audit that MLflow refuses, or whose
    run directory is not what it wrote, does not keep back those after it. Raises OperationError
    where the server cannot be used, or refused something, and RunError for such a run directory.
    """
    pending = list_pending_audits(ledger, config.name, MLFLOW)
    refused: MlflowException | None = None
    changed: RunError | None = None
    try:
        client = make_mlflow_client(config)
        for past in pending:
            try:
                ids = upload_audit(client, config, ledger, past)
            except MlflowException as error:
                # A value that MLflow will never take, as a parameter that somebody gave the run
                # before. All else may be the server's trouble, which the next audit would share.
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                refused = refused or error
                continue
            except RunError as error:
                changed = changed or error
                continue
            mark_audit_delivered(ledger, past.number, MLFLOW, ids)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from None
    if refused is not None:
        raise make_mlflow_error(config, "refused an audit", refused) from refused
    if changed is not None:
        raise changed
    return len(pending)


def upload_audit(
    client: MlflowClient, config: AuditConfig, ledger: Ledger, past: PastAudit
) -> dict[str, Any]:
    """Bring an audit's run to its end, and everything that follows from it: the ids that its
    summary is to name.
    """
    experiment_id = find_or_create_experiment(client, config)
    tags = {"poisonwatch.audit_id": past.audit_id, "poisonwatch.kind": "audit"}
    if not past.has_results:
        # It was cut short: its run is closed if there is one, and none is made for it.
        for run in find_tagged_runs(client, experiment_id, tags):
            client.set_tag(run.info.run_id, "poisonwatch.state", past.state)
            close_run(client, run, past, "KILLED")
        return {}
    run = find_or_create_run(
        client, experiment_id, tags, name=past.audit_id, started_at=past.started_at
    )
    run_id, ids = str(run.info.run_id), list_run_ids(run)
    past = replace(past, summary={**past.summary, **ids})
    # On another machine there is nothing to check, nor to upload.
    if past.run_dir.is_dir():
        require_unchanged_run(past.run_dir, find_seal(ledger, past.audit_id))
    # Before the files go up: summary.json is one of them. A sealed one stays as the audit wrote it,
    # with the ids of a server that was there; the ledger's summary has them in any case.
    if compute_seal(past.run_dir) is None:
        _update_summary(past.run_dir / "summary.json", ids)
    fill_run(client, run_id, past, ledger=ledger, config=config)
    register_operators(client, experiment_id, run_id, past, ledger)
    close_run(client, run, past, "FINISHED")
    _extend_trend(client, experiment_id, past)
    return ids


def _update_summary(path: Path, ids: Mapping[str, str]) -> None:
    """Name the run in the summary of an unsealed run directory, which was written before there was
    one, or by an audit that found no server.
    """
    if not path.exists():
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    updated = {**written, **ids}
    if updated != written:
        with replace_file(path) as part:
            part.write_text(json.dumps(updated, indent=2) + "\n", encoding="utf-8")


def _extend_trend(client: MlflowClient, experiment_id: str, past: PastAudit) -> None:
    """One point more in each chart of the experiment's long-lived run: its step is the audit's
    number in the ledger.
    """
    at = past.summary["created"]
    tags = {"poisonwatch.kind": "trend"}
    run = find_or_create_run(client, experiment_id, tags, name="trend", started_at=at)
    log_values(
        client,
        run.info.run_id,
        at,
        metrics=compute_headline_metrics(past.summary),
        tags={MLFLOW_RUN_NOTE: TREND_NOTE},
        step=past.number,
    )
    client.set_terminated(run.info.run_id, "FINISHED", end_time=to_milliseconds(at))
