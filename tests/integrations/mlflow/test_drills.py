"""A drill's run, with a run inside it for each attack and count."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.drills import upload_drill
from poisonwatch.integrations.mlflow.runs import open_audit_run


def power(recipe: str, count: int, with_pack: bool = False) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "pack": f"pack:{recipe}",
        "with_pack": with_pack,
        "count": count,
        "repeats": 2,
        "recall": 0.5,
        "recall_by_attribution": 0.25,
        "probability": 0.75,
        "false_flags": 1,
    }


def make_report(run_id: str) -> dict[str, Any]:
    """A drill's report with two attacks."""
    return {
        "mlflow_run_id": run_id,
        "created": "2026-06-01T12:00:00+00:00",
        "version": "0.1.0",
        "seed": 7,
        "model": {"name": "tiny", "fingerprint": "f00d"},
        "data_fingerprint": "beef",
        "false_flags_per_1000": 1.5,
        "rows": {"clean": 60},
        "stages": [{"name": "rehearse", "seconds": 2.5}],
        "plan": {"recipes": ["brand", "identity"], "counts": [2, 4], "repeats": 2},
        "powers": [power("brand", 2), power("identity", 4), power("identity", 4, True)],
        "sentences": ["One.", "Two."],
    }


def test_a_drill_is_one_run_with_others_inside_however_often_it_is_sent(tmp_path: Path) -> None:
    """Metrics by recipe and count; each inner run names its own; all are finished."""
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=mlflow_store(tmp_path))
    ids = open_audit_run(config, "a-drill", "drill")
    report = make_report(ids["mlflow_run_id"])
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    (tmp_path / "drill.json").write_text(json.dumps(report))
    for _ in range(2):
        upload_drill(config, report, tmp_path)
    client = MlflowClient(config.tracking)
    run = client.get_run(ids["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {
        "false_flags": 1.5,
        "recall.brand.2": 0.5,
        "probability.brand.2": 0.75,
        "false_flags.brand.2": 1,
        "recall.identity.4": 0.5,
        "probability.identity.4": 0.75,
        "false_flags.identity.4": 1,
        "recall.identity.4.with_pack": 0.5,
        "probability.identity.4.with_pack": 0.75,
        "false_flags.identity.4.with_pack": 1,
        "rows_clean": 60,
        "seconds.rehearse": 2.5,
    }
    assert run.data.tags["mlflow.note.content"] == "One.\n\nTwo."
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {
        "config.yaml",
        "drill.json",
    }
    inside = client.search_runs(
        [ids["mlflow_experiment_id"]], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    )
    assert sorted(
        (each.data.params["recipe"], each.data.params["with_pack"], each.info.status)
        for each in inside
    ) == [
        ("brand", "False", "FINISHED"),
        ("identity", "False", "FINISHED"),
        ("identity", "True", "FINISHED"),
    ]
    assert {each.data.metrics["attributed"] for each in inside} == {0.25}


def test_a_server_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """In one line, by its address."""
    (tmp_path / "notes.txt").write_text("no database")
    tracking = f"sqlite:///{tmp_path / 'notes.txt'}"
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=tracking)
    with pytest.raises(OperationError, match=r"MLflow at sqlite:///.* failed: "):
        upload_drill(config, make_report("0" * 32), tmp_path)
