"""The machine's metrics in a run, whatever the server does."""

import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.integrations.mlflow.system_metrics import sample_system_metrics


def test_the_machine_is_sampled_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every interval, and at the end; points that found no server come with the next ones, and no
    thread stays.
    """
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=mlflow_store(tmp_path))
    run_id = open_audit_run(config, "an-audit")["mlflow_run_id"]
    client = MlflowClient(config.tracking, config.tracking)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    client.delete_run(run_id)  # no metric is taken

    def steps() -> list[int]:
        return [
            point.step
            for point in client.get_metric_history(run_id, "system/cpu_utilization_percentage")
        ]

    waited = threading.Event()
    with sample_system_metrics(config, run_id):
        waited.wait(0.4)
        client.restore_run(run_id)
        for _ in range(200):
            if len(steps()) > 3:
                break
            waited.wait(0.05)
    assert steps() == list(range(len(steps())))
    assert len(steps()) > 3
    assert "system metrics" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("tracking", ["sqlite:////dev/null/mlflow.db", "nonsense://nowhere"])
def test_the_machine_s_metrics_never_fail_an_audit(
    tracking: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """No server, and not even a sensible address: nothing is raised, nothing is said, and a run
    that is not there is none to write to.
    """
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=tracking)
    for run_id in ("0" * 32, None):
        with sample_system_metrics(config, run_id):
            pass
    assert capfd.readouterr() == ("", "")
