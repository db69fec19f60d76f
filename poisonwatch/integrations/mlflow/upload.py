"""What an audit's MLflow run is filled with: from the run directory and the ledger alone, so that
it can be done later, and again.

What is sent twice is there once: metrics carry the audit's time, not the upload's, files replace
each other, and MLflow knows a data set by its digest.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_RUN_NOTE
from pydantic import ValidationError
from safetensors import safe_open
from sqlalchemy import select

from poisonwatch.atomic import read_jsonl, replace_file
from poisonwatch.config import AuditConfig, SourceConfig
from poisonwatch.flags import SEVERITIES, read_flagged_example
from poisonwatch.integrations.mlflow.registry import register_operators
from poisonwatch.integrations.mlflow.runs import (
    close_run,
    find_or_create_experiment,
    find_or_create_run,
    find_tagged_runs,
    list_run_ids,
    to_milliseconds,
)
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import flags
from poisonwatch.reports.links import make_dashboard_url
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.provenance import hash_data
from poisonwatch.text.display import to_plain_name

# Operators go to the registered model.
UPLOADED_FILES = (
    "config.yaml",
    "summary.json",
    "scores.parquet",
    "flags.jsonl",
    "evidence.jsonl",
    "rejected.jsonl",
    "validation.json",
)
LONGEST_PARAM, LONGEST_TAG, LONGEST_KEY = 500, 5000, 200
METRICS_AT_ONCE, PARAMS_AT_ONCE = 900, 90  # a request holds at most 1,000 and 100
PANELS_SHOWN = 40
LONGEST_DIGEST = 36  # characters that MLflow keeps of a data set's digest


def log_values(
    client: MlflowClient,
    run_id: str,
    at: str,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
) -> None:
    """Log metrics of the time `at`, parameters and tags, in requests that a tracking server takes."""
    points = [
        Metric(name, float(value), to_milliseconds(at), step)
        for name, value in (metrics or {}).items()
    ]
    settings = [
        Param(name[:LONGEST_KEY], str(value)[:LONGEST_PARAM])
        for name, value in (params or {}).items()
    ]
    client.log_batch(
        run_id, tags=[RunTag(name, value[:LONGEST_TAG]) for name, value in (tags or {}).items()]
    )
    for start in range(0, len(settings), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=settings[start : start + PARAMS_AT_ONCE])
    for start in range(0, len(points), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=points[start : start + METRICS_AT_ONCE])


def fill_run(
    client: MlflowClient, run_id: str, past: PastAudit, ledger: Ledger, config: AuditConfig
) -> None:
    """Tags, parameters, data sets, counts, costs, learning curve, flags, plots and the report of an
    audit that came to its results.
    """
    folder, summary, settings = past.run_dir, past.summary, read_run_settings(past.run_dir)
    tags = _build_tags(
        past,
        settings,
        find_worst_severity(ledger, past.number),
        make_dashboard_url(config, past.audit_id),
    )
    log_values(
        client,
        run_id,
        summary["created"],
        {**_compute_costs(summary), **compute_headline_metrics(summary)},
        _flatten_params(settings, summary),
        tags,
    )
    for losses in _read_learning_curve(
        folder / "learning_curve.csv", to_milliseconds(summary["created"])
    ):
        client.log_batch(run_id, metrics=losses)
    if datasets := list(_build_datasets(past, settings)):
        client.log_inputs(run_id, datasets=datasets)
    if (folder / "flags.jsonl").exists():
        _log_flags(client, run_id, folder / "flags.jsonl")
    for name in UPLOADED_FILES:
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name))
    if (folder / "plots").is_dir():
        client.log_artifacts(run_id, str(folder / "plots"), "plots")
    for name in ("report.html", "validation.html"):
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name), "report")


def read_run_settings(run_dir: Path) -> dict[str, Any]:
    """An audit's settings as it ran, without secrets; none where its run directory is on another
    machine.
    """
    path = run_dir / "config.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else {}


def find_worst_severity(ledger: Ledger, number: int) -> str:
    """The highest severity of an audit's flags; "none" where it has no flags."""
    with ledger.read() as connection:
        found = (
            connection.execute(select(flags.c.severity).where(flags.c.audit == number).distinct())
            .scalars()
            .all()
        )
    return max(found, key=SEVERITIES.index, default="none")


def compute_headline_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """What is followed from audit to audit, by metric; rates of no rows are left out."""
    counts, stages = summary["counts"], summary["stages"]
    values = {f"rows_{name}": float(counts[name]) for name in ("new", "flagged", "rejected")}
    if counts["new"]:
        values["flag_rate"] = counts["flagged"] / counts["new"]
    values["seconds_total"] = sum(stage["seconds"] for stage in stages)
    values["peak_memory_mb"] = max((stage["peak_memory_mb"] for stage in stages), default=0.0)
    for panel in summary["panels"]:
        name = to_plain_name(panel["name"])[:LONGEST_KEY]
        values[f"largest_score.{name}"] = panel["largest_score"]
        if panel.get("p_below_0.05") is not None:
            values[f"calibration.{name}"] = panel["p_below_0.05"]
    return values


def _compute_costs(summary: Mapping[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {f"rows_{name}": count for name, count in summary["counts"].items()}
    values |= {f"seconds.{stage['name']}": stage["seconds"] for stage in summary["stages"]}
    return values | {
        f"peak_memory_mb.{stage['name']}": stage["peak_memory_mb"] for stage in summary["stages"]
    }


def _read_learning_curve(path: Path, at: int) -> Iterator[list[Metric]]:
    """The training's losses by step, in batches that a tracking server takes; none where nothing
    was trained.
    """
    if not path.exists():
        return
    curve = pd.read_csv(path, index_col="step")
    rows = METRICS_AT_ONCE // len(curve.columns)
    for start in range(0, len(curve), rows):
        part = curve.iloc[start : start + rows]
        yield [
            Metric(f"loss.{name}", float(part[name][step]), at, int(step))
            for name in curve
            for step in part.index
        ]


def _flatten_params(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in settings.items() if value is not None}
    flat: dict[Any, Any] = pd.json_normalize(given, sep=".").iloc[0].to_dict() if given else {}
    resolved = {f"resolved.{name}": value for name, value in summary["settings"].items()}
    return {str(name): value for name, value in {**flat, **resolved}.items()}


def _build_tags(
    past: PastAudit, settings: Mapping[str, Any], severity: str, dashboard: str | None
) -> dict[str, str]:
    summary = past.summary
    flagged, new, panels = summary["counts"]["flagged"], summary["counts"]["new"], summary["panels"]
    lines = [
        f"**{flagged} of {new} new rows flagged.** Report: Artifacts, `report/report.html`."
        + (f" [Decide on the dashboard]({dashboard})." if dashboard else ""),
        "",
        "| panel | flagged | largest score |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{to_plain_name(p['name'])[:LONGEST_KEY]}` | {p['flagged']} | {p['largest_score']:.1f} |"
        for p in panels[:PANELS_SHOWN]
    ]
    source = (
        {"poisonwatch.source": SourceConfig.model_validate(settings["source"]).address}
        if "source" in settings
        else {}
    )
    return source | {
        MLFLOW_RUN_NOTE: "\n".join(lines),
        "poisonwatch.version": summary["version"],
        "poisonwatch.model": past.model,
        "poisonwatch.model_name": summary["model"]["name"],
        "poisonwatch.sentinels": past.sentinels,
        "poisonwatch.data": summary["data_fingerprint"],
        "poisonwatch.severity": severity,
        "poisonwatch.state": past.state,
        "poisonwatch.number": str(past.number),
    }


def _build_datasets(past: PastAudit, settings: Mapping[str, Any]) -> Iterator[DatasetInput]:
    """The new rows, and the trusted ones that they were compared with, by id and place; what the
    run directory lacks is left out.
    """
    scores, operators = past.run_dir / "scores.parquet", past.run_dir / OPERATORS_FILE
    if scores.exists():
        frame = pd.read_parquet(
            scores, columns=["example_id", "source", "position"]
        ).drop_duplicates()
        yield _build_dataset(
            frame, past.name, past.summary["data_fingerprint"], settings.get("source"), "audit"
        )
    if operators.exists() and past.summary["counts"]["reference"]:
        with safe_open(operators, "np") as file:
            trusted = [
                bytes(row).hex() for row in file.get_tensor("ids")[past.summary["counts"]["new"] :]
            ]
        frame = pd.DataFrame({"example_id": trusted})
        yield _build_dataset(
            frame,
            f"{past.name} trusted",
            hash_data(trusted),
            settings.get("reference"),
            "reference",
        )


def _build_dataset(
    frame: pd.DataFrame, name: str, digest: str, source: Mapping[str, Any] | None, context: str
) -> DatasetInput:
    named = {"name": name, "digest": digest[:LONGEST_DIGEST]}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
            # MLflow warns that a local path is no registered source, and of integers without missing
            # values
        )
        try:
            dataset = from_pandas(
                frame, source=SourceConfig.model_validate(source).address, **named
            )
        except (
            MlflowException,
            ValidationError,
        ):  # it knows no databases, nor the hub's URLs; rows that a person trusts are in no file
            dataset = from_pandas(frame, **named)
        return DatasetInput(
            dataset._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", context)]
        )


def _log_flags(client: MlflowClient, run_id: str, path: Path) -> None:
    """The flags as the table that MLflow shows; its own `log_table` would add them to those of an
    upload that broke off.
    """
    columns = [
        "example_id",
        "source",
        "position",
        "panel",
        "sentinel_id",
        "severity",
        "score",
        "rank",
        "coefficient",
        "p_value",
        "q_value",
    ]
    records = []
    for record in read_jsonl(path):
        example = read_flagged_example(record)
        texts = {
            "prompt": example.prompt,
            "response": example.response,
            "reason": "; ".join(record["reasons"]),
        }
        records.append({name: record[name] for name in columns} | texts)
    table = pd.DataFrame(records, columns=[*columns, "prompt", "response", "reason"])
    client.log_text(run_id, table.to_json(orient="split", index=False), "flags.json")
    client.set_tag(
        run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": "flags.json", "type": "table"}])
    )


def upload_audit(
    client: MlflowClient, config: AuditConfig, ledger: Ledger, past: PastAudit
) -> dict[str, Any]:
    """Bring an audit's run to its end, and everything that follows from it: the ids that its
    summary is to name.
    """
    experiment_id = find_or_create_experiment(client, config)
    tags = {"poisonwatch.audit_id": past.audit_id, "poisonwatch.kind": "audit"}
    if not past.has_results:
        for run in find_tagged_runs(client, experiment_id, tags):
            client.set_tag(run.info.run_id, "poisonwatch.state", past.state)
            close_run(client, run, past, "KILLED")
        return {}
    run = find_or_create_run(client, experiment_id, tags, past.audit_id, past.started_at)
    run_id = str(run.info.run_id)
    ids = list_run_ids(run)
    past = replace(past, summary={**past.summary, **ids})
    _update_summary(past.run_dir / "summary.json", ids)
    fill_run(client, run_id, past, ledger, config)
    register_operators(client, experiment_id, run_id, past)
    close_run(client, run, past, "FINISHED")
    _extend_trend(client, experiment_id, past)
    return ids


def _update_summary(path: Path, ids: Mapping[str, str]) -> None:
    """Name the run in the run directory's summary, which was written before there was one, or by an
    audit that found no server.
    """
    if not path.exists():
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    if any(written.get(key) != value for key, value in ids.items()):
        with replace_file(path) as part:
            part.write_text(json.dumps({**written, **ids}, indent=2) + "\n", encoding="utf-8")


def _extend_trend(client: MlflowClient, experiment_id: str, past: PastAudit) -> None:
    """One point more in each chart of the experiment's long-lived run: its step is the audit's
    number in the ledger.
    """
    at = past.summary["created"]
    run_id = find_or_create_run(
        client, experiment_id, {"poisonwatch.kind": "trend"}, "trend", at
    ).info.run_id
    note = {
        MLFLOW_RUN_NOTE: "One point an audit, at the audit's number in the ledger. `calibration` is expected at .05, `flag_rate` near 0."
    }
    log_values(
        client, run_id, at, compute_headline_metrics(past.summary), tags=note, step=past.number
    )
    client.set_terminated(run_id, "FINISHED", end_time=to_milliseconds(at))
