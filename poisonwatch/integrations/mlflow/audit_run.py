"""What an audit's MLflow run is filled with: from the run directory and the ledger alone, so that
it can be done later, and again.

What is sent twice is there once: metrics carry the audit's time, not the upload's, files replace
each other, and MLflow knows a data set by its digest.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_RUN_NOTE
from sqlalchemy import select

from poisonwatch.atomic import read_jsonl
from poisonwatch.config import AuditConfig
from poisonwatch.failures import tell_failures
from poisonwatch.flags import SEVERITIES, read_flagged_example
from poisonwatch.integrations.mlflow.datasets import build_datasets
from poisonwatch.integrations.mlflow.heads import tag_head
from poisonwatch.integrations.mlflow.run_note import describe_run
from poisonwatch.integrations.mlflow.runs import to_milliseconds
from poisonwatch.integrations.mlflow.values import LONGEST_KEY, METRICS_AT_ONCE, log_values
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import flags
from poisonwatch.ledger.transactions import retried
from poisonwatch.reports.new_topics import count_unjudged
from poisonwatch.run_directory.checksums import CHECKSUMS_FILE
from poisonwatch.run_directory.discovery import DISCOVERY_FILE
from poisonwatch.sources.unread import UnreadField, describe_unread
from poisonwatch.text.display import to_plain_name
from poisonwatch.text.safe_yaml import parse_yaml, read_yaml_text

# Operators are left out: they may take hundreds of megabytes, and go to the registered model.
UPLOADED_FILES = (
    "config.yaml",
    "summary.json",
    "scores.parquet",
    "flags.jsonl",
    "evidence.jsonl",
    "near_copies.jsonl",
    DISCOVERY_FILE,
    "rejected.jsonl",
    "validation.json",
    CHECKSUMS_FILE,
)
REPORT_FILES = ("report.html", "validation.html")
FLAG_COLUMNS = (
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
)
TEXT_COLUMNS = ("tools", "prompt", "response", "lowered", "rejected_response", "reason")
FLAGS_SHOWN = 1000  # a browser loads the table whole


def fill_run(
    client: MlflowClient, run_id: str, past: PastAudit, ledger: Ledger, config: AuditConfig
) -> None:
    """Tags, parameters, data sets, counts, costs and the learning curve of an audit that came to
    its results.
    """
    summary, settings = past.summary, read_run_settings(past.run_dir)
    log_values(
        client,
        run_id,
        summary["created"],
        metrics={**_compute_costs(summary), **compute_headline_metrics(summary)},
        params=_flatten_params(settings, summary),
        tags=_build_tags(
            past,
            settings,
            severity=find_worst_severity(ledger, past.number),
            note=describe_run(ledger, config, past),
        ),
    )
    tag_head(client, run_id, ledger)
    curve = past.run_dir / "learning_curve.csv"
    for losses in _read_learning_curve(curve, to_milliseconds(summary["created"])):
        client.log_batch(run_id, metrics=losses)
    # MLflow refuses a request without any.
    if datasets := list(build_datasets(past, settings)):
        client.log_inputs(run_id, datasets=datasets)


def read_run_settings(run_dir: Path) -> dict[str, Any]:
    """An audit's settings as it ran, without secrets; none where its run directory is on another
    machine.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        return {}
    return dict(parse_yaml(read_yaml_text(path)))


@retried
def find_worst_severity(ledger: Ledger, number: int) -> str:
    """The highest severity of an audit's flags; "none" where it has no flags."""
    query = select(flags.c.severity).where(flags.c.audit == number).distinct()
    with ledger.read() as connection:
        found = connection.execute(query).scalars().all()
    return max(found, key=SEVERITIES.index, default="none")


def compute_headline_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """What is followed from audit to audit, by metric; rates of no rows are left out."""
    counts, stages = summary["counts"], summary["stages"]
    values: dict[str, float] = {}
    for name in ("new", "flagged", "rejected"):
        values[f"rows_{name}"] = float(counts[name])
    values["rows_unjudged"] = float(count_unjudged(summary))
    discovery = summary.get("discovery")
    if discovery is not None:
        values["groups_discovered"] = float(discovery["found"])
        values["groups_new"] = float(discovery["new"])
    values["parts_failed"] = float(len(tell_failures(summary)))
    if counts["new"]:
        values["flag_rate"] = counts["flagged"] / counts["new"]
    values["seconds_total"] = sum(stage["seconds"] for stage in stages)
    values["peak_memory_mb"] = max((stage["peak_memory_mb"] for stage in stages), default=0.0)
    for panel in summary["panels"]:
        # MLflow refuses most of what a panel may be called.
        name = to_plain_name(panel["name"])[:LONGEST_KEY]
        values[f"largest_score.{name}"] = panel["largest_score"]
        if panel.get("p_below_0.05") is not None:
            values[f"calibration.{name}"] = panel["p_below_0.05"]
    return values


def _compute_costs(summary: Mapping[str, Any]) -> dict[str, float]:
    """How many rows of each kind there were, and the time and memory of each stage."""
    values: dict[str, float] = {}
    for name, count in summary["counts"].items():
        values[f"rows_{name}"] = count
    # Summaries of earlier versions say nothing of their source.
    source = summary.get("source")
    if source:
        values["fields_unread"] = len(source["unread"])
        values["files_passed_over"] = source["passed_over_count"]
    for stage in summary["stages"]:
        values[f"seconds.{stage['name']}"] = stage["seconds"]
        values[f"peak_memory_mb.{stage['name']}"] = stage["peak_memory_mb"]
    return values


def _read_learning_curve(path: Path, at: int) -> Iterator[list[Metric]]:
    """The training's losses by step, in batches that a tracking server takes; none where nothing
    was trained. `at` is in milliseconds since 1970.
    """
    if not path.exists():
        return
    curve = pd.read_csv(path, index_col="step")
    steps = METRICS_AT_ONCE // len(curve.columns)
    for start in range(0, len(curve), steps):
        part = curve.iloc[start : start + steps]
        losses: list[Metric] = []
        for name in curve:
            for step in part.index:
                losses.append(Metric(f"loss.{name}", float(part[name][step]), at, int(step)))
        yield losses


def _flatten_params(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The audit file's settings as `stride.fit`, and what followed from them as `resolved.K`."""
    given = {key: value for key, value in settings.items() if value is not None}
    params: dict[str, Any] = {}
    if given:
        flat = pd.json_normalize(given, sep=".").iloc[0]
        params = {str(name): value for name, value in flat.to_dict().items()}
    for name, value in summary["settings"].items():
        params[f"resolved.{name}"] = value
    return params


def _build_tags(
    past: PastAudit, settings: Mapping[str, Any], severity: str, note: str
) -> dict[str, str]:
    """What the list of runs can be searched by, and the note on the run's page."""
    summary = past.summary
    tags: dict[str, str] = {}
    if "source" in settings:
        tags["poisonwatch.source"] = AuditConfig.model_validate(settings).source.address
    if summary.get("source"):
        unread = [UnreadField(**field) for field in summary["source"]["unread"]]
        tags["poisonwatch.unread_fields"] = describe_unread(unread) or "none"
    return tags | {
        MLFLOW_RUN_NOTE: note,
        "poisonwatch.version": summary["version"],
        "poisonwatch.model": past.model,
        "poisonwatch.model_name": summary["model"]["name"],
        "poisonwatch.sentinels": past.sentinels,
        "poisonwatch.data": summary["data_fingerprint"],
        "poisonwatch.severity": severity,
        "poisonwatch.state": past.state,
        "poisonwatch.number": str(past.number),
    }


def log_files(client: MlflowClient, run_id: str, folder: Path) -> None:
    """The files of a run directory: flags, plots, the report; those that it lacks are left out."""
    if (folder / "flags.jsonl").exists():
        _log_flags(client, run_id, folder / "flags.jsonl")
    for name in UPLOADED_FILES:
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name))
    if (folder / "plots").is_dir():
        client.log_artifacts(run_id, str(folder / "plots"), "plots")
    for name in REPORT_FILES:
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name), "report")


def _log_flags(client: MlflowClient, run_id: str, path: Path) -> None:
    """The first flags, the strongest, as the table that MLflow shows; the file beside it has
    all.
    """
    records: list[dict[str, Any]] = []
    for record in islice(read_jsonl(path), FLAGS_SHOWN):
        example = read_flagged_example(record)
        shown = {name: record[name] for name in FLAG_COLUMNS}
        shown["tools"] = example.tools
        shown["prompt"] = example.prompt
        shown["response"] = example.response
        shown["lowered"] = example.lowered
        shown["rejected_response"] = example.rejected_response
        shown["reason"] = "; ".join(record["reasons"])
        records.append(shown)
    table = pd.DataFrame(records, columns=[*FLAG_COLUMNS, *TEXT_COLUMNS])
    # MLflow's own `log_table` would add the rows to those of an upload that broke off.
    client.log_text(run_id, table.to_json(orient="split", index=False), "flags.json")
    shown_as_table = json.dumps([{"path": "flags.json", "type": "table"}])
    client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, shown_as_table)
