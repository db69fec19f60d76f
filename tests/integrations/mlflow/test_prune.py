"""MLflow runs of audits go with their files; what MLflow cannot be asked for stays."""

import sqlite3
from pathlib import Path
from urllib.parse import urlparse

import pytest
from audits import write_audit
from drill_reports import make_report
from servers import mlflow_store
from tracking import client_of, runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.drills import upload_drill
from poisonwatch.integrations.mlflow.prunable import (
    RunTotals,
    find_champions,
    find_latest_good,
    list_drills,
    prune_runs,
)
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.ledger.ledger import Ledger


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    """Two runs, of which the first has files of 8 bytes."""
    config = load_config(write_audit(tmp_path, tmp_path, tracking=mlflow_store(tmp_path)))
    client = client_of(config)
    for name in ("a", "b"):
        open_audit_run(config, name)
    run_id = runs_of(config)[0].info.run_id
    client.log_text(run_id, "four", "one.txt")
    client.log_text(run_id, "four", "report/two.txt")
    return config


def test_runs_of_these_audits_go_with_their_files(config: AuditConfig) -> None:
    """Nothing goes until it is said; a second time there is nothing left."""
    first = next(run for run in runs_of(config) if run.data.tags["poisonwatch.audit_id"] == "a")
    place = Path(urlparse(str(first.info.artifact_uri)).path)
    assert prune_runs(config, {"a", "x"}, delete=False) == RunTotals(1, 8)
    assert place.is_dir()
    assert prune_runs(config, {"a", "x"}, delete=True) == RunTotals(1, 8)
    assert not place.exists()
    assert [run.data.tags["poisonwatch.audit_id"] for run in runs_of(config)] == ["b"]
    assert prune_runs(config, {"a", "x"}, delete=True) == RunTotals(0, 0)
    assert prune_runs(config, set(), delete=True) == RunTotals(0, 0)


def test_drills_go_with_the_runs_inside_them(config: AuditConfig, tmp_path: Path) -> None:
    """The audits' runs, and those of another drill, stay."""
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    (tmp_path / "drill.json").write_text("{}")
    for name in ("old", "new"):
        ids = open_audit_run(config, name, "drill")
        upload_drill(config, make_report(ids["mlflow_run_id"]), tmp_path)
    assert list_drills(config).keys() == {"old", "new"}
    assert len(runs_of(config, "drilled")) == 6
    assert prune_runs(config, {"old"}, delete=False).runs == 4
    assert prune_runs(config, {"old"}, delete=True).runs == 4
    assert list_drills(config).keys() == {"new"}
    assert len(runs_of(config, "drilled")) == 3
    assert len(runs_of(config)) == 2
    assert prune_runs(config, {"old"}, delete=True) == RunTotals(0, 0)


def test_a_store_in_a_folder_of_an_odd_name_is_pruned_too(tmp_path: Path) -> None:
    """SQLite's own form of address names the file."""
    config = load_config(write_audit(tmp_path / "a?b", tmp_path))
    open_audit_run(config, "a")
    assert prune_runs(config, {"a"}, delete=True).runs == 1
    assert prune_runs(config, {"a"}, delete=True).runs == 0


def test_a_deletion_that_broke_off_is_finished_by_the_next(config: AuditConfig) -> None:
    """Files are gone, and the run is still there."""
    run = next(run for run in runs_of(config) if run.data.tags["poisonwatch.audit_id"] == "a")
    place = Path(urlparse(str(run.info.artifact_uri)).path)
    for path in sorted(place.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert prune_runs(config, {"a"}, delete=True).runs == 1
    assert len(runs_of(config)) == 1


def test_files_that_cannot_be_reached_are_one_line_and_their_run_stays(
    config: AuditConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket whose credentials are missing; what goes on where."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    with sqlite3.connect(config.tracking.removeprefix("sqlite:///")) as store:
        store.execute("UPDATE runs SET artifact_uri = 's3://bucket/run'")
    store.close()
    with pytest.raises(OperationError, match=r"s3://bucket/run.*prune` goes on where it stopped"):
        prune_runs(config, {"a"}, delete=True)
    assert len(runs_of(config)) == 2


def test_the_champion_is_known_to_mlflow_and_to_the_ledger(
    tracked: tuple[AuditConfig, Ledger],
) -> None:
    """The second audit had nothing new: the first one's operators answer."""
    config, ledger = tracked
    (champion,) = find_champions(config)
    assert find_latest_good(ledger, config.name) == champion
    assert find_latest_good(ledger, "another") is None


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    settings = {"tracking": f"sqlite:///{tmp_path / 'none.db'}"}
    config = load_config(write_audit(tmp_path, tmp_path, **settings))
    assert find_champions(config) == set()
    assert list_drills(config) == {}
    assert prune_runs(config, {"a"}, delete=True) == RunTotals(0, 0)
    assert not (tmp_path / "none.db").exists()


def test_a_server_that_is_down_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = load_config(write_audit(tmp_path, tmp_path, tracking="http://127.0.0.1:9"))
    for ask in (
        lambda: find_champions(config),
        lambda: list_drills(config),
        lambda: prune_runs(config, {"a"}, delete=True),
    ):
        with pytest.raises(OperationError, match="cannot be reached"):
            ask()
