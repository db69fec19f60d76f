"""The audit as an MLflow run.

Only `MlflowClient` with an explicit run id is used: the fluent API keeps its active run per thread, and tasks may run in any.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis
from prefect import task
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.config import AuditConfig
from poisonwatch.environment import conceal, expand
from poisonwatch.errors import OperationError
from poisonwatch.history import MLFLOW, PastAudit, debtors, settle
from poisonwatch.ledger import Ledger
from poisonwatch.redaction import first_line
from poisonwatch.runs import flagged_example, plain_name, read_lines
from poisonwatch.tasks import OUTSIDE

# Operators stay in the run directory.
UPLOADED = ("config.yaml", "summary.json", "scores.parquet", "flags.jsonl", "evidence.jsonl", "rejected.jsonl", "validation.json")
LONGEST_PARAM = 500
METRIC_STEPS = 200  # a request holds at most 1,000 metrics
UNAVAILABLE = (MlflowException, SQLAlchemyError, OSError)

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def mlflow_client(config: AuditConfig) -> MlflowClient:
    """A client of the audit's tracking server."""
    return MlflowClient(tracking_uri=expand(config.tracking, "tracking"))


def mlflow_trouble(config: AuditConfig, what: str, error: BaseException) -> OperationError:
    """What MLflow did, without secrets, as an error to be raised."""
    return OperationError(f"MLflow at {conceal(config.tracking)} {what}: {conceal(first_line(error), config.tracking)}")


@task(**OUTSIDE)
def open_run(config: AuditConfig, audit_id: str, kind: str = "audit") -> str:
    """Create the MLflow run of an audit (or a drill) and return its id. Raises OperationError where the server cannot be used."""
    try:
        client = mlflow_client(config)
        return _create_run(client, _experiment(client, config), audit_id, kind)
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "cannot be used", error) from error


def _experiment(client: MlflowClient, config: AuditConfig) -> str:
    experiment = client.get_experiment_by_name(config.name)
    return str(experiment.experiment_id if experiment else client.create_experiment(config.name, _artifacts_beside(config)))


def _create_run(client: MlflowClient, experiment_id: str, audit_id: str, kind: str) -> str:
    tags = {"poisonwatch.audit_id": audit_id, "poisonwatch.kind": kind}
    return str(client.create_run(experiment_id, run_name=audit_id, tags=tags).info.run_id)


@task(**OUTSIDE)
def track(ledger: Ledger, config: AuditConfig) -> int:
    """Fill and close the MLflow run of every audit that owes it: how many. Raises OperationError where the server cannot be used."""
    owing = debtors(ledger, config.name, MLFLOW)
    try:
        client = mlflow_client(config)
        for past in owing:
            run_id = _run_of(client, config, past)
            if run_id is not None and past.came_to_results:
                _upload(client, config, run_id, past)
            if run_id is not None:
                client.set_terminated(run_id, "FINISHED" if past.came_to_results else "KILLED")
            settle(ledger, past.number, MLFLOW, {"mlflow_run_id": run_id})
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "failed", error) from error
    return len(owing)


def _run_of(client: MlflowClient, config: AuditConfig, past: PastAudit) -> str | None:
    """The run of an audit, created where there is none and there are results to show."""
    experiment_id = _experiment(client, config)
    runs = client.search_runs([experiment_id], f"tags.`poisonwatch.audit_id` = '{past.audit_id}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    return _create_run(client, experiment_id, past.audit_id, "audit") if past.came_to_results else None


def _upload(client: MlflowClient, config: AuditConfig, run_id: str, past: PastAudit) -> None:
    """Parameters, dataset, counts, costs, learning curve, flags, plots and the report, from the run directory."""
    summary, folder = past.summary, past.run_dir
    client.log_batch(run_id, metrics=_metrics(summary), params=_params(config, summary), tags=_tags(summary))
    if not folder.is_dir():  # it ran on another machine
        return
    for batch in _curve_metrics(folder / "learning_curve.csv"):
        client.log_batch(run_id, metrics=batch)
    client.log_inputs(run_id, datasets=[_dataset(config, summary, folder)])
    client.log_table(run_id, _flag_table(folder), "flags.json")
    for name in UPLOADED:
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name))
    if (folder / "plots").is_dir():
        client.log_artifacts(run_id, str(folder / "plots"), "plots")
    for name in ("report.html", "validation.html"):
        client.log_artifact(run_id, str(folder / name), "report")


def _artifacts_beside(config: AuditConfig) -> str | None:
    """Artifacts of a SQLite store lie in `mlartifacts` next to it; a server decides for itself."""
    tracking = expand(config.tracking, "tracking")
    if not tracking.startswith("sqlite:///"):
        return None
    return (Path(tracking.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _metrics(summary: Mapping[str, Any]) -> list[Metric]:
    values: dict[str, float] = {f"rows_{name}": count for name, count in summary["counts"].items()}
    values |= {f"seconds.{stage['name']}": stage["seconds"] for stage in summary["stages"]}
    values |= {f"peak_memory_mb.{stage['name']}": stage["peak_memory_mb"] for stage in summary["stages"]}
    values |= {f"largest_score.{plain_name(panel['name'])}": panel["largest_score"] for panel in summary["panels"]}
    now = get_current_time_millis()
    return [Metric(name, float(value), now, 0) for name, value in values.items()]


def _curve_metrics(path: Path) -> Iterator[list[Metric]]:
    """The training's losses by step, in batches that a tracking server takes; none where nothing was trained."""
    if not path.exists():
        return
    now = get_current_time_millis()
    curve = pd.read_csv(path, index_col="step")
    for start in range(0, len(curve), METRIC_STEPS):
        part = curve.iloc[start : start + METRIC_STEPS]
        yield [Metric(f"loss.{name}", float(part[name][step]), now, int(step)) for name in curve for step in part.index]


def _params(config: AuditConfig, summary: Mapping[str, Any]) -> list[Param]:
    settings = {key: value for key, value in config.public().items() if value is not None}
    flat: dict[Any, Any] = pd.json_normalize(settings, sep=".").iloc[0].to_dict()
    resolved = {f"resolved.{name}": value for name, value in summary["settings"].items()}
    return [Param(str(name), str(value)[:LONGEST_PARAM]) for name, value in {**flat, **resolved}.items()]


def _tags(summary: Mapping[str, Any]) -> list[RunTag]:
    flagged, new = summary["counts"]["flagged"], summary["counts"]["new"]
    lines = [
        f"**{flagged} of {new} new rows flagged.** Report: Artifacts, `report/report.html`.",
        "",
        "| panel | flagged | largest score |",
        "|---|---|---|",
    ]
    lines += [f"| `{plain_name(p['name'])}` | {p['flagged']} | {p['largest_score']:.1f} |" for p in summary["panels"]]
    fingerprints = {"poisonwatch.model": summary["model"]["fingerprint"], "poisonwatch.data": summary["data_fingerprint"]}
    tags = {"mlflow.note.content": "\n".join(lines), "poisonwatch.version": summary["version"], **fingerprints}
    return [RunTag(name, value) for name, value in tags.items()]


def _dataset(config: AuditConfig, summary: Mapping[str, Any], folder: Path) -> DatasetInput:
    frame = pd.read_parquet(folder / "scores.parquet", columns=["example_id", "source", "position"]).drop_duplicates()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns that a local path is no registered source, and of integers without missing values
        named = {"name": config.name, "digest": summary["data_fingerprint"][:36]}
        try:
            dataset = from_pandas(frame, source=config.source.address, **named)
        except MlflowException:  # it knows no databases, nor the hub's URLs
            dataset = from_pandas(frame, **named)
        return DatasetInput(dataset._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", "audit")])


def _flag_table(folder: Path) -> pd.DataFrame:
    columns = ["example_id", "source", "position", "panel", "sentinel_id", "severity", "score", "rank", "coefficient", "p_value", "q_value"]
    records = []
    for record in read_lines(folder / "flags.jsonl"):
        example = flagged_example(record)
        texts = {"prompt": example.prompt, "response": example.response, "reason": "; ".join(record["reasons"])}
        records.append({name: record[name] for name in columns} | texts)
    return pd.DataFrame(records, columns=[*columns, "prompt", "response", "reason"])
