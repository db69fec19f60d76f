"""Runs are found again."""

from pathlib import Path

from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import open_audit_run


def test_a_run_is_opened_once(tmp_path: Path) -> None:
    """Its answer was lost: the second request gets the run of the first."""
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=mlflow_store(tmp_path))
    assert (
        open_audit_run(config, "an-audit")
        == open_audit_run(config, "an-audit")
        != open_audit_run(config, "another")
    )
