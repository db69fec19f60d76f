"""Runs are found again."""

from pathlib import Path

from mlflow import MlflowClient
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.runs import (
    KIND_TAG,
    OF_RUNS,
    find_or_create_experiment,
    open_audit_run,
)


def test_a_run_is_opened_once(tmp_path: Path) -> None:
    """Its answer was lost: the second request gets the run of the first."""
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=mlflow_store(tmp_path))
    assert (
        open_audit_run(config, "an-audit")
        == open_audit_run(config, "an-audit")
        != open_audit_run(config, "another")
    )


def test_an_experiment_opens_on_its_runs_unless_somebody_chose(tmp_path: Path) -> None:
    """One that is made, and one that was there; what somebody chose for it stays."""
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], tracking=mlflow_store(tmp_path))
    client = MlflowClient(config.tracking)

    def find_kind(name: str) -> str:
        find_or_create_experiment(client, config.model_copy(update={"name": name}))
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        return str(experiment.tags[KIND_TAG])

    client.create_experiment("before")
    client.create_experiment("chosen", tags={KIND_TAG: "genai_development"})
    assert [find_kind(name) for name in ("made", "before")] == [OF_RUNS, OF_RUNS]
    assert find_kind("chosen") == "genai_development"
