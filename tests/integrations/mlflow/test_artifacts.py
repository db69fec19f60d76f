"""Where MLflow's artifacts find no place, all else is told, and they are sent once they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from audits import benign, planted, write_audit
from buckets import KEYS, body_limit, open_bucket, s3_server
from ledgers import append
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import s3_artifact_repo
from servers import mlflow_server, mlflow_store
from tracking import LAX, client_of, list_names, runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.reporter import Reporter
from poisonwatch.integrations.mlflow.artifacts import (
    ArtifactsError,
    is_too_large,
    make_artifacts_error,
    using_artifacts,
)
from poisonwatch.integrations.mlflow.owed import upload_owed
from poisonwatch.integrations.mlflow.upload import MISSING
from poisonwatch.ledger.history import list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.reviews import list_review_traces


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server("artifacts") as url:
        yield url


@pytest.fixture
def no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The environment of somebody who knows the server of S3, and has no keys for it."""
    for name in (*KEYS, "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    forget_clients(monkeypatch)
    return s3


def forget_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow and boto3 keep what they found for minutes, as only another process would not know."""
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def write_lax(folder: Path, model: Path, **settings: Any) -> AuditConfig:
    """A small audit that flags something."""
    defaults = {"rows": benign(12) + planted(), "tracking": mlflow_store(folder), **LAX}
    return load_config(write_audit(folder, model, **{**defaults, **settings}))


def test_artifacts_on_s3_without_credentials_are_owed_and_all_else_is_told(
    tmp_path: Path, tiny_folder: Path, no_credentials: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the place and the cause; metrics and reviews are there, for the next audit,
    too; with credentials all of it is, once.
    """
    config = write_lax(tmp_path, tiny_folder)
    client = client_of(config)
    client.create_experiment(config.name, "s3://artifacts/audits")
    outcome = audit_inline(config, tmp_path / "one")
    (warning,) = outcome.warnings
    assert "s3://artifacts/audits/" in warning
    assert "NoCredentialsError" in warning
    assert "poisonwatch sync" in warning
    with Ledger.at(config.state) as ledger:
        flagged = outcome.summary["counts"]["flagged"]
        assert len(list_review_traces(ledger, config.name)) == flagged > 0
    append(tmp_path / "rows.jsonl", benign(1, start=500))
    assert len(audit_inline(config, tmp_path / "two").warnings) == 1
    for run in runs_of(config):
        assert (run.info.status, run.data.tags[MISSING]) == ("RUNNING", "files")
        assert run.data.metrics["rows_new"] > 0
    (trend,) = runs_of(config, "trend")
    assert len(client.get_metric_history(trend.info.run_id, "rows_new")) == 2
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    forget_clients(monkeypatch)
    with Ledger.at(config.state) as ledger:
        assert upload_owed(ledger, config) == 2
        assert list_pending_audits(ledger, config.name, MLFLOW) == []
    for run in runs_of(config):
        assert (run.info.status, MISSING in run.data.tags) == ("FINISHED", False)
        assert "summary.json" in list_names(client, run.info.run_id)
    listed = open_bucket(no_credentials).list_objects_v2(Bucket="artifacts")["Contents"]
    assert sum(one["Key"].endswith("operators.safetensors") for one in listed) == 2
    assert len(client.get_metric_history(trend.info.run_id, "rows_new")) == 2


def test_operators_that_a_proxy_refuses_hold_nothing_else_back(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """413 from a limit before the server: the runs are whole and ended; the operators come once it
    is raised.
    """
    with mlflow_server(tmp_path / "mlflow") as url, body_limit(url, 150_000) as proxy:
        # Operators of 83 rows are larger than all else of an audit.
        rows = benign(40) + planted()
        config = write_lax(tmp_path, tiny_folder, tracking=proxy.url, rows=rows)
        (warning,) = audit_inline(config, tmp_path / "one").warnings
        assert "refused a file as too large (413" in warning
        append(tmp_path / "rows.jsonl", benign(1, start=500))
        (warning,) = audit_inline(config, tmp_path / "two").warnings
        assert "413" in warning
        assert runs_of(config)[0].data.tags[MISSING] == "operators"
        for run in runs_of(config):
            assert run.info.status == "FINISHED"
            names = list_names(client_of(config), run.info.run_id)
            assert {"flags.json", "scores.parquet", "report"} <= set(names)
        proxy.most = 1 << 30
        with Ledger.at(config.state) as ledger:
            assert upload_owed(ledger, config) >= 1
        assert not any(MISSING in run.data.tags for run in runs_of(config))
        assert len(client_of(config).search_model_versions("name = 'tiny'")) == 2


def test_an_experiment_that_somebody_deleted_is_named_with_what_brings_it_back(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Before the audit or in the midst of it: one line, and all is there once it is restored."""
    config = write_lax(tmp_path, tiny_folder)
    client = client_of(config)

    class Deleter(Reporter):
        """Deletes the experiment in MLflow's UI, while the audit runs."""

        def note_rows(self, *args: Any, **more: Any) -> None:
            experiment = client.get_experiment_by_name(config.name)
            client.delete_experiment(experiment.experiment_id)

    (warning,) = audit_inline(config, tmp_path / "one", Deleter(quiet=True)).warnings
    id = client.get_experiment_by_name(config.name).experiment_id
    assert f"the experiment {config.name} was deleted" in warning
    assert f"mlflow experiments restore --experiment-id {id}" in warning
    append(tmp_path / "rows.jsonl", benign(1, start=500))
    assert audit_inline(config, tmp_path / "two").warnings == [warning]
    client.restore_experiment(id)
    with Ledger.at(config.state) as ledger:
        assert upload_owed(ledger, config) == 2
    assert [run.info.status for run in runs_of(config)] == ["FINISHED", "FINISHED"]


def explain(error: Exception, place: str = "s3://bucket/a") -> str:
    """The line of an error that came up while files were sent to a place."""
    config = AuditConfig(source={"path": "a.jsonl"}, sentinels=["s.yaml"])
    with pytest.raises(ArtifactsError) as caught, using_artifacts(place):
        raise error
    return str(make_artifacts_error(config, caught.value))


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("boto3", "poisonwatch[s3]"),
        ("google.cloud", "poisonwatch[gcs]"),
        ("azure", "azure-storage"),
    ],
)
def test_a_missing_library_is_named_with_what_brings_it(module: str, package: str) -> None:
    """By the module that could not be imported."""
    assert f"pip install '{package}" in explain(ModuleNotFoundError(name=module)).replace(
        "install azure", "install 'azure"
    )


def test_a_folder_that_cannot_be_written_is_mended_by_its_rights() -> None:
    """Credentials are no advice for one."""
    error = PermissionError(13, "Permission denied", "/data/mlartifacts")
    assert "mend the folder or its permissions" in explain(error, "file:///data/mlartifacts")


def test_a_tracking_server_that_is_down_is_no_matter_of_its_files() -> None:
    """Whoever sends them says that of the server."""
    error = MlflowException("API request failed: Max retries exceeded")
    with pytest.raises(MlflowException), using_artifacts("mlflow-artifacts:/1"):
        raise error


def test_too_large_is_what_answers_413() -> None:
    """In words of MLflow's; a number of another meaning is none."""
    said = "API request to endpoint /log-batch failed with error code 413 != 200"
    assert is_too_large(MlflowException(said))
    assert not is_too_large(MlflowException("error code 500, run 14130"))
    assert not is_too_large(OSError("413"))
