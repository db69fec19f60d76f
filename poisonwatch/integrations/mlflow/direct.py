"""MLflow's runs and aliases, read without its client, which takes more than two seconds to import:
a store in a file of SQLite by its tables, a server by its REST API.

Only what is read often is read so, and nothing is ever written. What is not as it was when this was
written (tables, ways to log in, answers) raises NotDirectError: whoever asks goes on with the
client, which knows.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.tracking import get_tracking, show_tracking
from poisonwatch.text.sqlite_files import find_sqlite_file

FLAGGED = "rows_flagged"  # the metric
RUNS_PER_PAGE = 1000
TRIES = 3
TIMEOUT_S = 30.0

# With any of these the client logs in, or chooses a workspace, as is not done here.
CLIENT_VARIABLES = (
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_ENABLE_WORKSPACES",
    "MLFLOW_WORKSPACE",
)


class NotDirectError(Exception):
    """The store is one that only MLflow's client reads."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run of MLflow: `started` is in milliseconds since 1970, `flagged` the metric of that name,
    if it has any; of its `tags`, Poisonwatch's.
    """

    run_id: str
    experiment_id: str
    status: str
    started: int
    artifact_uri: str
    tags: Mapping[str, str]
    flagged: float | None


def find_store_file(config: AuditConfig) -> Path | None:
    """The file of SQLite that the audit's MLflow store is, there or not; None where it is none."""
    scheme, _, place = get_tracking(config).partition(":///")
    if scheme != "sqlite":
        return None
    return find_sqlite_file(place.partition("?")[0])


def list_stored_runs(
    config: AuditConfig, kind: str, most: int | None, newest_first: bool
) -> list[StoredRun]:
    """The runs of a kind of an audit's name, by when they began: `most` of them, or
    all. Raises NotDirectError, and OperationError where no server answers.
    """
    file = find_store_file(config)
    if file is not None:
        return _read_runs(file, config.name, kind, most, newest_first)
    address = get_tracking(config)
    if address.startswith(("http://", "https://")):
        return list(_ask_runs(config, address.rstrip("/"), kind, most, newest_first))
    raise NotDirectError(address)


def list_aliased_audits(config: AuditConfig, models: Sequence[str]) -> set[str]:
    """The ids of the audits of a name whose operators carry an alias, in a file of SQLite, where
    they are registered under one of the names of `models`. Raises NotDirectError.
    """
    file = find_store_file(config)
    if file is None:
        raise NotDirectError(show_tracking(config))
    places = ", ".join("?" * len(models))
    query = f"""
        SELECT version.value FROM registered_model_aliases AS alias
        JOIN registered_model_tags AS model
            ON model.name = alias.name AND model.key = 'poisonwatch.audit' AND model.value = ?
        JOIN model_version_tags AS version
            ON version.name = alias.name AND version.version = alias.version
            AND version.key = 'poisonwatch.audit_id'
        WHERE alias.name IN ({places})
        """  # noqa: S608 - only question marks are put in
    with reading_store(file) as database:
        return {str(found) for (found,) in database.execute(query, (config.name, *models))}


def _read_runs(
    file: Path, name: str, kind: str, most: int | None, newest_first: bool
) -> list[StoredRun]:
    order = "DESC" if newest_first else "ASC"
    query = f"""
        SELECT run.run_uuid, run.experiment_id, run.status, run.start_time, run.artifact_uri,
            metric.value
        FROM runs AS run
        JOIN tags AS kind ON kind.run_uuid = run.run_uuid
            AND kind.key = 'poisonwatch.kind' AND kind.value = ?
        LEFT JOIN latest_metrics AS metric ON metric.run_uuid = run.run_uuid
            AND metric.key = '{FLAGGED}'
        WHERE run.experiment_id = ? AND run.lifecycle_stage = 'active'
        ORDER BY run.start_time {order}, run.run_uuid LIMIT ?
        """  # noqa: S608 - nothing of others is put in
    runs = []
    with reading_store(file) as database:
        for experiment in find_experiments(database, name):
            limit = -1 if most is None else most
            for id, of, status, started, place, flagged in database.execute(
                query, (kind, experiment, limit)
            ):
                found = database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (id,))
                runs.append(StoredRun(id, str(of), status, started, place, dict(found), flagged))
    return runs


def find_experiments(database: sqlite3.Connection, name: str) -> list[int]:
    """The experiment of this name, if there is one. Raises NotDirectError where there are more."""
    query = "SELECT experiment_id FROM experiments WHERE name = ?"
    found = [int(id) for (id,) in database.execute(query, (name,))]
    # of several workspaces
    if len(found) > 1:
        raise NotDirectError(name)
    return found


@contextmanager
def reading_store(file: Path) -> Iterator[sqlite3.Connection]:
    """Yield a store to be read and not written. Raises NotDirectError, for what fails inside, too,
    where it is not what it was when this was written.
    """
    if any(os.environ.get(name) for name in CLIENT_VARIABLES):
        raise NotDirectError(str(file))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            yield database
    # of another version's tables, or none at all
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise NotDirectError(str(file)) from error


def _ask_runs(
    config: AuditConfig, address: str, kind: str, most: int | None, newest_first: bool
) -> Iterator[StoredRun]:
    import requests

    if any(os.environ.get(name) for name in CLIENT_VARIABLES):
        raise NotDirectError(address)
    if (Path.home() / ".mlflow" / "credentials").exists():
        raise NotDirectError(address)
    order = "DESC" if newest_first else "ASC"
    asked: dict[str, Any] = {
        "filter": f"tags.`poisonwatch.kind` = '{kind}'",
        "order_by": [f"attributes.start_time {order}"],
        "max_results": min(most or RUNS_PER_PAGE, RUNS_PER_PAGE),
    }
    count = 0
    try:
        with requests.Session() as session:
            _log_in(session)
            session.mount(address, _make_patient_adapter())
            below = f"{address}/api/2.0/mlflow"
            by_name = {"experiment_name": config.name}
            answer = session.get(
                f"{below}/experiments/get-by-name", params=by_name, timeout=TIMEOUT_S
            )
            if answer.status_code == 404 and "RESOURCE_DOES_NOT_EXIST" in answer.text:
                return
            found = _read(answer)["experiment"]
            asked["experiment_ids"] = [found["experiment_id"]]
            while True:
                page = _read(session.post(f"{below}/runs/search", json=asked, timeout=TIMEOUT_S))
                for run in page.get("runs", []):
                    if most is None or count < most:
                        yield _to_stored_run(run)
                    count += 1
                asked["page_token"] = page.get("next_page_token")
                if not asked["page_token"] or (most is not None and count >= most):
                    return
    except requests.ConnectionError as error:
        raise make_unreachable_error(config) from error
    except (requests.RequestException, KeyError, TypeError, ValueError) as error:
        raise NotDirectError(address) from error


def _log_in(session: Any) -> None:
    """As the client does: by name and password before a token."""
    user, password = (
        os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "PASSWORD")
    )
    if user and password:
        session.auth = (user, password)
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        session.headers["Authorization"] = f"Bearer {token}"


def _make_patient_adapter() -> Any:
    """As often as the client tries."""
    from requests.adapters import HTTPAdapter

    return HTTPAdapter(max_retries=TRIES - 1)


def _read(answer: Any) -> Any:
    answer.raise_for_status()
    return answer.json()


def _to_stored_run(run: Mapping[str, Any]) -> StoredRun:
    info, data = run["info"], run["data"]
    metrics = {metric["key"]: metric["value"] for metric in data.get("metrics", [])}
    return StoredRun(
        info["run_id"],
        info["experiment_id"],
        info["status"],
        int(info["start_time"]),
        info["artifact_uri"],
        {tag["key"]: tag["value"] for tag in data.get("tags", [])},
        metrics.get(FLAGGED),
    )


def make_unreachable_error(config: AuditConfig) -> OperationError:
    """That no MLflow server answers, as an error to be raised."""
    return OperationError(
        f"MLflow at {show_tracking(config)} cannot be reached: start it, and "
        "`poisonwatch sync` tells it what it missed"
    )
