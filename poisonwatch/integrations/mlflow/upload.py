"""Bring to MLflow the audits that it does not have yet: each one's run, the operators as a model,
and a point of the trend.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.errors import PoisonwatchError, RunError
from poisonwatch.integrations.mlflow.artifacts import (
    ArtifactsError,
    is_too_large,
    make_artifacts_error,
    using_artifacts,
)
from poisonwatch.integrations.mlflow.audit_run import (
    compute_headline_metrics,
    fill_run,
    log_files,
)
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.owed import IncompleteUploadError
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
from poisonwatch.ledger.history import PastAudit, mark_audit_delivered
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.run_directory.checksums import compute_seal, require_unchanged_run
from poisonwatch.run_directory.seals import find_seal

# A run's tag that says what an upload left out: its files, or its operators alone.
MISSING = "poisonwatch.missing"
FILES, OPERATORS = "files", "operators"
TREND_NOTE = (
    "One point an audit, at the audit's number in the ledger. "
    "`calibration` is expected at .05, `flag_rate` near 0."
)

# What the trend has of an audit without new rows: that it took place, and how it went.
NOTHING_NEW_METRICS = ("rows_new", "parts_failed", "seconds_total")


@dataclass(frozen=True, slots=True)
class _Told:
    """An audit whose run is told all but the operators: the `ids` that its summary is to name; none
    where there is no run. `lacked` is what an earlier upload left out.
    """

    past: PastAudit
    ids: Mapping[str, str]
    lacked: str | None = None


def upload_pending(ledger: Ledger, config: AuditConfig, pending: Sequence[PastAudit]) -> int:
    """Fill and close the MLflow runs of these audits, oldest first, and register the operators
    last: how many.

    Ids of run and experiment go into the ledger's summary. An audit that MLflow refuses, whose
    files find no place, or whose run directory is not what it wrote, does not keep back those after
    it. Raises OperationError where the server cannot be used, IncompleteUploadError where it took
    some of it, and RunError for such a run directory.
    """
    try:
        upload = _Upload(make_mlflow_client(config), ledger, config)
        told: list[_Told] = []
        for past in pending:
            with upload.going_on():
                told.append(upload.tell(past))
        # They may take hundreds of megabytes, and be refused for it: all else is there by then.
        for one in told:
            with upload.going_on():
                upload.register(one)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "failed", error) from None
    upload.raise_troubles()
    return len(pending)


class _Upload:
    """One round of it, and its troubles."""

    def __init__(self, client: MlflowClient, ledger: Ledger, config: AuditConfig) -> None:
        self._client, self._ledger, self._config = client, ledger, config
        # The place of the artifacts, where it takes nothing: it is not asked again.
        self._closed: ArtifactsError | None = None
        # The first of each kind: the others say the same.
        self._troubles: dict[str, PoisonwatchError] = {}

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """What keeps one audit from MLflow is kept for the end."""
        try:
            yield
        except ArtifactsError as error:
            if not error.is_too_large:
                self._closed = error
            kind = f"files {error.is_too_large}"
            self._troubles.setdefault(kind, make_artifacts_error(self._config, error))
        except RunError as error:
            self._troubles.setdefault("run", error)
        except MlflowException as error:
            # A value that MLflow will never take, as a parameter that somebody gave the run before.
            # All else may be the server's trouble, which the next audit would share.
            if error.error_code != "INVALID_PARAMETER_VALUE" and not is_too_large(error):
                raise
            refused = make_mlflow_error(self._config, "refused an audit", error)
            self._troubles.setdefault("refused", refused)

    def raise_troubles(self) -> None:
        """Raises RunError or IncompleteUploadError where there were any."""
        troubles = list(self._troubles.values())
        if not troubles:
            return
        if len(troubles) == 1 and isinstance(troubles[0], RunError):
            raise troubles[0]
        raise IncompleteUploadError("; ".join(map(str, troubles)))

    def tell(self, past: PastAudit) -> _Told:
        """Bring an audit's run to its end, and everything that follows from it but the operators.

        Raises ArtifactsError where its files find no place: the run stays open, with all else.
        """
        client = self._client
        experiment_id = find_or_create_experiment(client, self._config)
        if past.nothing_new:
            # A point of the trend says that it took place: no run of its own, of hundreds a month.
            extend_trend(client, experiment_id, past, NOTHING_NEW_METRICS)
            return _Told(past, {})
        tags = {"poisonwatch.audit_id": past.audit_id, "poisonwatch.kind": "audit"}
        if not past.has_results:
            # It was cut short: its run is closed if there is one, and none is made for it.
            for run in find_tagged_runs(client, experiment_id, tags):
                client.set_tag(run.info.run_id, "poisonwatch.state", past.state)
                close_run(client, run, past, "KILLED")
            return _Told(past, {})
        run = find_or_create_run(
            client, experiment_id, tags, name=past.audit_id, started_at=past.started_at
        )
        told = _Told(past, list_run_ids(run), run.data.tags.get(MISSING))
        if told.lacked == OPERATORS and run.info.status == "FINISHED":
            return told
        if told.lacked == FILES and self._closed is not None:
            raise self._closed
        self._fill(run, told)
        close_run(client, run, past, "FINISHED")
        return told

    def _fill(self, run: Run, told: _Told) -> None:
        client, run_id = self._client, run.info.run_id
        past = replace(told.past, summary={**told.past.summary, **told.ids})
        # On another machine there is nothing to check, nor to upload.
        if past.run_dir.is_dir():
            require_unchanged_run(past.run_dir, find_seal(self._ledger, past.audit_id))
        # Before the files go up: summary.json is one of them. A sealed one stays as the audit wrote
        # it, with the ids of a server that was there; the ledger's summary has them in any case.
        if compute_seal(past.run_dir) is None:
            _update_summary(past.run_dir / "summary.json", told.ids)
        fill_run(client, run_id, past, ledger=self._ledger, config=self._config)
        extend_trend(client, run.info.experiment_id, past)
        if not past.run_dir.is_dir():
            return
        with self._noting(told, FILES), using_artifacts(run.info.artifact_uri):
            log_files(client, run_id, past.run_dir)

    def register(self, told: _Told) -> None:
        """Register the operators, and mark the audit as delivered. Raises ArtifactsError where they
        find no place: it stays owed.
        """
        if told.ids:
            experiment_id, run_id = told.ids["mlflow_experiment_id"], told.ids["mlflow_run_id"]
            with self._noting(told, OPERATORS):
                register_operators(
                    self._client,
                    experiment_id,
                    run_id,
                    told.past,
                    self._ledger,
                    self._config.keep.operators,
                )
            if told.lacked is not None:
                self._client.delete_tag(run_id, MISSING)
        mark_audit_delivered(self._ledger, told.past.number, MLFLOW, told.ids)

    @contextmanager
    def _noting(self, told: _Told, what: str) -> Iterator[None]:
        """Files are sent inside, if their place takes any; where it does not, the run says so."""
        try:
            if self._closed is not None:
                raise self._closed
            yield
        except ArtifactsError:
            self._client.set_tag(told.ids["mlflow_run_id"], MISSING, what)
            raise


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


def extend_trend(
    client: MlflowClient, experiment_id: str, past: PastAudit, only: Sequence[str] = ()
) -> None:
    """One point more in each chart (`only` these, where there are any) of the experiment's
    long-lived run: its step is the audit's number in the ledger.
    """
    metrics = compute_headline_metrics(past.summary)
    if only:
        metrics = {name: metrics[name] for name in only}
    at = past.summary["created"]
    tags = {"poisonwatch.kind": "trend"}
    run = find_or_create_run(client, experiment_id, tags, name="trend", started_at=at)
    log_values(
        client,
        run.info.run_id,
        at,
        metrics=metrics,
        tags={MLFLOW_RUN_NOTE: TREND_NOTE},
        step=past.number,
    )
    client.set_terminated(run.info.run_id, "FINISHED", end_time=to_milliseconds(at))
