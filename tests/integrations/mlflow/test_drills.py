"""A drill's run, with a run inside it for each attack and count."""

import json
from pathlib import Path

import pytest
from drill_reports import make_report
from mlflow import MlflowClient
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.drills import upload_drill
from poisonwatch.integrations.mlflow.runs import open_audit_run


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
