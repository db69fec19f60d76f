"""The runs of past audits in MLflow, read: directly where that is possible, else by its client."""

from collections.abc import Iterator
from dataclasses import dataclass

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.direct import (
    RUNS_PER_PAGE,
    NotDirectError,
    StoredRun,
    find_store_file,
    list_stored_runs,
)
from poisonwatch.reports.links import make_mlflow_run_url


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


def list_tracked_runs(config: AuditConfig, most: int) -> dict[str, TrackedRun]:
    """The latest audits of a name in MLflow, by audit id: at most `most`. Raises OperationError
    where the server cannot be used.
    """
    tracked = (_to_tracked_run(config, run) for run in list_runs(config, most=most))
    return {run.audit_id: run for run in tracked}


def list_runs(
    config: AuditConfig, kind: str = "audit", most: int | None = None, newest_first: bool = True
) -> list[StoredRun]:
    """The runs of a kind of an audit's name, by when they began: `most` of them, or all; none of a
    SQLite store that is not there. Raises OperationError where the server cannot be used.
    """
    if config.tracking is None:
        return []
    # To ask MLflow for a store that is not there makes one.
    file = find_store_file(config)
    if file is not None and not file.is_file():
        return []
    try:
        return list_stored_runs(config, kind, most, newest_first)
    except NotDirectError:
        return _ask_client(config, kind, most, newest_first)


def _ask_client(
    config: AuditConfig, kind: str, most: int | None, newest_first: bool
) -> list[StoredRun]:
    from poisonwatch.integrations.mlflow.client import (
        UNAVAILABLE,
        make_mlflow_client,
        make_mlflow_error,
    )

    try:
        client = make_mlflow_client(config)
        experiment = client.get_experiment_by_name(config.name)
        if experiment is None:
            return []
        order = "DESC" if newest_first else "ASC"

        def read() -> Iterator[StoredRun]:
            token: str | None = None
            while True:
                page = client.search_runs(
                    [experiment.experiment_id],
                    f"tags.`poisonwatch.kind` = '{kind}'",
                    order_by=[f"attributes.start_time {order}"],
                    max_results=most or RUNS_PER_PAGE,
                    page_token=token,
                )
                for run in page:
                    yield StoredRun(
                        run.info.run_id,
                        run.info.experiment_id,
                        run.info.status,
                        run.info.start_time,
                        run.info.artifact_uri,
                        run.data.tags,
                        run.data.metrics.get("rows_flagged"),
                    )
                token = page.token
                if not token or most is not None:
                    return

        return list(read())
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from None


def _to_tracked_run(config: AuditConfig, run: StoredRun) -> TrackedRun:
    # MLflow keeps every metric as a float. A run that was cut short has none.
    flagged = None if run.flagged is None else int(run.flagged)
    return TrackedRun(
        audit_id=run.tags["poisonwatch.audit_id"],
        run_id=run.run_id,
        status=run.status,
        started=run.started,
        flagged=flagged,
        url=make_mlflow_run_url(config, run.experiment_id, run.run_id),
    )
