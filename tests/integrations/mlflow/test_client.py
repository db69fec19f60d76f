"""The MLflow server: one address for all of it, and errors that hold no secret."""

from pathlib import Path

import pytest
from full_disks import fill, small_disk
from mlflow.entities import Metric
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)


def tracked_at(address: str) -> AuditConfig:
    return AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=address)


def test_the_model_registry_is_the_tracking_server_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the environment has set for this process."""
    store = mlflow_store(tmp_path)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    monkeypatch.setenv("MLFLOW_STORE", store)
    client = make_mlflow_client(tracked_at("${MLFLOW_STORE}"))
    assert client.tracking_uri == client._registry_uri == store


def test_an_error_holds_no_password() -> None:
    """Nor does what MLflow repeats of the address; of its message one line is shown."""
    config = tracked_at("http://ann:hunter2@127.0.0.1:5000")
    error = RuntimeError("no answer from http://ann:hunter2@127.0.0.1:5000\nand much more")
    message = str(make_mlflow_error(config, "failed", error))
    assert message.startswith("MLflow at http://")
    assert " failed: no answer from " in message
    assert "hunter2" not in message
    assert "and much more" not in message


def test_a_server_that_is_down_is_told_from_one_that_refuses() -> None:
    """With what to do."""
    error = RuntimeError("HTTPConnectionPool: Max retries exceeded with url: /mlflow")
    message = str(make_mlflow_error(tracked_at("http://127.0.0.1:5000"), "failed", error))
    assert message.startswith("MLflow at http://127.0.0.1:5000 cannot be reached: ")
    assert "poisonwatch sync" in message


def test_a_store_on_a_full_disk_is_one_error_and_no_traceback_on_the_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What MLflow itself logs repeats the statement and its values."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        config = tracked_at(mlflow_store(disk))
        client = make_mlflow_client(config)
        run_id = client.create_run(client.create_experiment("tiny")).info.run_id
        fill(disk)
        values = [Metric(f"m{i}", 1.0, 0, i) for i in range(500)]
        with pytest.raises(UNAVAILABLE) as raised:
            client.log_batch(run_id, metrics=values)
    message = str(make_mlflow_error(config, "failed", raised.value))
    assert "database or disk is full" in message
    assert "\n" not in message
    assert caplog.records == []
