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
from poisonwatch.plots import panel_figure
from poisonwatch.redaction import first_line
from poisonwatch.runs import flag_record
from poisonwatch.summary import Attributed
from poisonwatch.tasks import OUTSIDE
from poisonwatch.training import LearningCurve
from poisonwatch.verdicts import Verdicts

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
        experiment = client.get_experiment_by_name(config.name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(config.name, _artifacts_beside(config))
        tags = {"poisonwatch.audit_id": audit_id, "poisonwatch.kind": kind}
        return str(client.create_run(experiment_id, run_name=audit_id, tags=tags).info.run_id)
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "cannot be used", error) from error


@task(**OUTSIDE)
def track(config: AuditConfig, summary: Mapping[str, Any], found: Attributed, folder: Path) -> None:
    """Fill and close the MLflow run: parameters, dataset, counts, costs, learning curve, flags, plots and the report."""
    run_id, verdicts, curve = summary["mlflow_run_id"], found.verdicts, found.fitted.curve if found.fitted else None
    try:
        client = mlflow_client(config)
        client.log_batch(run_id, metrics=_metrics(summary), params=_params(config, summary), tags=_tags(summary))
        for batch in _curve_metrics(curve):
            client.log_batch(run_id, metrics=batch)
        client.log_inputs(run_id, datasets=[_dataset(config, summary, verdicts)])
        client.log_table(run_id, _flag_table(verdicts), "flags.json")
        for j, panel in enumerate(verdicts.panels):
            client.log_figure(run_id, panel_figure(verdicts, j), f"scores/{j:02d}-{_file_name(panel)}.png")
        for name in UPLOADED:
            client.log_artifact(run_id, str(folder / name))
        for name in ("report.html", "validation.html"):
            client.log_artifact(run_id, str(folder / name), "report")
        client.set_terminated(run_id, "FINISHED")
    except UNAVAILABLE as error:
        raise mlflow_trouble(config, "failed", error) from error


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
    values |= {f"largest_score.{_file_name(panel['name'])}": panel["largest_score"] for panel in summary["panels"]}
    now = get_current_time_millis()
    return [Metric(name, float(value), now, 0) for name, value in values.items()]


def _curve_metrics(curve: LearningCurve | None) -> Iterator[list[Metric]]:
    """The training's losses by step, in batches that a tracking server takes; none where nothing was trained."""
    if curve is None:
        return
    now = get_current_time_millis()
    losses = {"total": curve.total, "fidelity": curve.fidelity, "stability": curve.stability, "linearity": curve.linearity}
    for start in range(0, len(curve.step), METRIC_STEPS):
        steps = slice(start, start + METRIC_STEPS)
        yield [
            Metric(f"loss.{name}", float(value), now, int(step))
            for name, values in losses.items()
            for step, value in zip(curve.step[steps], values[steps], strict=True)
        ]


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
    lines += [f"| `{_file_name(p['name'])}` | {p['flagged']} | {p['largest_score']:.1f} |" for p in summary["panels"]]
    fingerprints = {"poisonwatch.model": summary["model"]["fingerprint"], "poisonwatch.data": summary["data_fingerprint"]}
    tags = {"mlflow.note.content": "\n".join(lines), "poisonwatch.version": summary["version"], **fingerprints}
    return [RunTag(name, value) for name, value in tags.items()]


def _dataset(config: AuditConfig, summary: Mapping[str, Any], verdicts: Verdicts) -> DatasetInput:
    frame = pd.DataFrame([{"example_id": e.id, "source": e.source, "position": e.position} for e in verdicts.examples])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns that a local path is no registered source, and of integers without missing values
        named = {"name": config.name, "digest": summary["data_fingerprint"][:36]}
        try:
            dataset = from_pandas(frame, source=config.source.address, **named)
        except MlflowException:  # it knows no databases, nor the hub's URLs
            dataset = from_pandas(frame, **named)
        return DatasetInput(dataset._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", "audit")])


def _flag_table(verdicts: Verdicts) -> pd.DataFrame:
    columns = ["example_id", "source", "position", "panel", "sentinel_id", "severity", "score", "rank", "coefficient", "p_value", "q_value"]
    records = []
    for flag in verdicts.flags:
        record = flag_record(flag)
        texts = {"prompt": flag.example.prompt, "response": flag.example.response, "reason": "; ".join(flag.reasons)}
        records.append({name: record[name] for name in columns} | texts)
    return pd.DataFrame(records, columns=[*columns, "prompt", "response", "reason"])


def _file_name(text: str) -> str:
    """Text as part of a metric or file name: MLflow allows letters, digits, and a few signs."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in text) or "_"
