"""The runs of past audits, where MLflow has none."""

from pathlib import Path

from audits import write_audit

from poisonwatch.config_file import load_config
from poisonwatch.integrations.mlflow.audit_runs import list_runs, list_tracked_runs


def test_a_store_that_is_not_there_has_no_runs_and_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    config = load_config(write_audit(tmp_path, tmp_path, tracking=f"sqlite:///{file}"))
    assert list_runs(config) == []
    assert list_tracked_runs(config, 5) == {}
    assert not file.exists()
