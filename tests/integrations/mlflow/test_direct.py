"""What is read of MLflow without its client is what the client reads."""

import sqlite3
from pathlib import Path

import pytest
from audits import write_audit
from servers import mlflow_server, mlflow_store
from tracking import client_of, runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow import audit_runs
from poisonwatch.integrations.mlflow.audit_runs import list_runs, list_tracked_runs
from poisonwatch.integrations.mlflow.direct import NotDirectError, list_stored_runs
from poisonwatch.integrations.mlflow.runs import open_audit_run


def fill(config: AuditConfig) -> None:
    """Three runs of audits, one of them deleted; a drill's, and another audit's."""
    for name in ("a", "b", "gone"):
        open_audit_run(config, name)
    client = client_of(config)
    runs = {run.data.tags["poisonwatch.audit_id"]: run.info.run_id for run in runs_of(config)}
    client.log_metric(runs["a"], "rows_flagged", 3)
    client.set_terminated(runs["a"])
    client.delete_run(runs["gone"])
    open_audit_run(config, "drill", kind="drill")
    open_audit_run(config.model_copy(update={"name": "another"}), "c")


def compare(config: AuditConfig) -> None:
    assert list_stored_runs(config, "audit", None, True) == audit_runs._ask_client(
        config, "audit", None, True
    )
    found = list_stored_runs(config, "audit", None, False)
    assert [run.tags["poisonwatch.audit_id"] for run in found] == ["a", "b"]
    assert [(run.status, run.flagged) for run in found] == [("FINISHED", 3), ("RUNNING", None)]
    assert list_stored_runs(config, "audit", 1, True) == found[1:]
    (drill,) = list_stored_runs(config, "drill", None, True)
    assert drill.tags["poisonwatch.audit_id"] == "drill"
    assert list_tracked_runs(config, 5)["a"].flagged == 3
    assert list_stored_runs(config.model_copy(update={"name": "none"}), "audit", None, True) == []


def test_a_file_is_read_as_the_client_reads_it(tmp_path: Path) -> None:
    config = load_config(write_audit(tmp_path, tmp_path, tracking=mlflow_store(tmp_path)))
    fill(config)
    compare(config)


def test_a_server_answers_as_it_answers_the_client(tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as address:
        config = load_config(write_audit(tmp_path, tmp_path, tracking=address))
        fill(config)
        compare(config)


@pytest.mark.parametrize("name", ["MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AUTH"])
def test_what_the_client_alone_knows_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Workspaces, and ways to log in."""
    monkeypatch.setenv(name, "one")
    for tracking in (mlflow_store(tmp_path), "http://127.0.0.1:9"):
        config = load_config(write_audit(tmp_path, tmp_path, tracking=tracking))
        with pytest.raises(NotDirectError):
            list_stored_runs(config, "audit", None, True)


def test_a_store_of_other_tables_is_left_to_the_client(tmp_path: Path) -> None:
    """Which says what is wrong with it."""
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    database.close()
    config = load_config(write_audit(tmp_path, tmp_path, tracking=f"sqlite:///{file}"))
    with pytest.raises(NotDirectError):
        list_stored_runs(config, "audit", None, True)
    file.write_text("no database")
    with pytest.raises(OperationError, match="cannot be used"):
        list_runs(config)


def test_a_server_that_is_down_is_one_line(tmp_path: Path) -> None:
    config = load_config(write_audit(tmp_path, tmp_path, tracking="http://127.0.0.1:9"))
    with pytest.raises(OperationError, match="cannot be reached: start it"):
        list_runs(config)
