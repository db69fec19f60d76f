"""Audits without new rows leave a line; what older audits left goes when it is asked for."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from audits import benign, write_audit
from browsing import asking
from ledgers import append
from mlflow.entities import ViewType
from prunable import leave_drill
from servers import mlflow_store, postgres_server
from tracking import client_of, runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.verification.verify import Verification, verify_ledger

# So that nothing is flagged, and no person needed.
QUIET = {"screens": [], "probes": 0, "detection": {"false_discovery_rate": 1e-6}}
LITTLE = {"days": 0, "audits": 1, "operators": 1}


@dataclass(frozen=True)
class Year:
    """The audits of a name: two with new rows, and one without between them."""

    file: Path
    old: AuditOutcome
    nothing: AuditOutcome
    new: AuditOutcome

    @property
    def config(self) -> AuditConfig:
        return load_config(self.file)

    def verify(self) -> Verification:
        with Ledger.at(self.config.state) as ledger:
            return verify_ledger(ledger, self.config.name)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def audit(file: Path, name: str) -> AuditOutcome:
    run_dir = file.parent / "runs" / name
    outcome = audit_inline(load_config(file), run_dir, skip_empty=True)
    assert outcome.warnings == []
    return outcome


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Year:
    folder = tmp_path_factory.mktemp("year")
    settings = {"tracking": mlflow_store(folder), "keep": LITTLE, **QUIET}
    file = write_audit(folder, tiny_folder, rows=benign(24), **settings)
    old = audit(file, "old")
    nothing = audit(file, "nothing")
    append(folder / "rows.jsonl", benign(12, start=500))
    return Year(file, old, nothing, audit(file, "new"))


def test_an_audit_without_new_rows_leaves_a_line_and_a_point_of_the_trend(year: Year) -> None:
    """No run directory, no operators, no run of its own; nothing is owed, and all of it verifies.
    No model is loaded.
    """
    assert year.nothing.summary["nothing_new"]
    assert {path.name for path in year.nothing.run_dir.parent.iterdir()} >= {"old", "new"}
    assert not year.nothing.run_dir.exists()
    stages = [stage["name"] for stage in year.nothing.summary["stages"]]
    assert stages == ["pull", "find_model", "read_reviews", "choose"]
    assert year.nothing.flags == []
    (trend,) = runs_of(year.config, "trend")
    client = client_of(year.config)
    points = client.get_metric_history(trend.info.run_id, "rows_new")
    assert [(point.step, point.value) for point in points] == [(1, 24), (2, 0), (3, 12)]
    # What it has no value of has no point.
    points = client.get_metric_history(trend.info.run_id, "rows_rejected")
    assert [point.step for point in points] == [1, 3]
    audited = {run.data.tags["poisonwatch.audit_id"] for run in runs_of(year.config)}
    assert audited == {year.old.summary["audit_id"], year.new.summary["audit_id"]}
    found = year.verify()
    assert (found.is_whole, found.audits, found.run_dirs, found.away) == (True, 3, 2, 0)


def test_history_tells_audits_without_new_rows_from_others(
    year: Year, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("history", str(year.file), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shown = [(line["new"], line["mlflow"], line["run_dir"] is None) for line in lines]
    assert shown == [(12, "finished", False), (0, "no run", True), (24, "finished", False)]


def test_a_run_directory_that_somebody_named_is_written_all_the_same(
    year: Year, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever names one reads it afterwards; without one, the command says that nothing was new."""
    named = year.file.parent / "named"
    arguments = ["audit", str(year.file), "--engine", "inline", "--json"]
    assert run(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["run_dir"] is None
    assert run(*arguments, "--run-dir", str(named)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run_dir"], "nothing_new" in printed) == (str(named), False)
    assert (named / "summary.json").is_file()


def test_a_prune_names_what_goes_and_removes_nothing_until_it_is_told_to(
    year: Year, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = year.old.run_dir, year.new.run_dir
    assert run("prune", str(year.file), "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    removed = {(found["part"], found["path"]) for found in planned["removals"]}
    assert ("run directory", str(old.resolve())) in removed
    assert planned["mlflow_runs"]["runs"] >= 1 < planned["mlflow_runs"]["bytes"]
    assert planned["removed"] is False
    assert run("prune", str(year.file)) == 0
    printed = capsys.readouterr().out
    assert "--yes" in printed
    assert str(old) in printed
    assert [path.is_dir() for path in (old, new)] == [True, True]
    assert len(runs_of(year.config)) >= 2

    assert run("prune", str(year.file), "--yes") == 0
    assert not old.exists()
    assert (new / OPERATORS_FILE).is_file()
    found = year.verify()
    assert (found.is_whole, found.away, found.pruned >= 1) == (True, 0, True)


def test_what_was_pruned_is_told_wherever_it_is_missed(
    year: Year, capsys: pytest.CaptureFixture[str]
) -> None:
    """History, explain, the dashboard; MLflow has neither the run nor its files, and the champion
    still answers.
    """
    if year.old.run_dir.exists():
        assert run("prune", str(year.file), "--yes") == 0
    capsys.readouterr()
    assert run("history", str(year.file), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = [line for line in lines if line["audit_id"] == year.old.summary["audit_id"]]
    assert line["mlflow"] == "pruned"
    assert line["run_dir_pruned_at"]
    question = ["--prompt", "Who?", "--response", "Me."]
    assert run("explain", str(year.old.run_dir), *question) == 2
    assert "poisonwatch history" in capsys.readouterr().err
    with asking(year.file) as browser:
        page = browser.get(f"/audits/{year.old.summary['audit_id']}").text
        assert "pruned on 20" in page
        page = browser.get(f"/audits/{year.nothing.summary['audit_id']}").text
        assert "no row was new" in page
        assert browser.get(f"/audits/{year.old.summary['audit_id']}/report").status_code == 404
    client = client_of(year.config)
    run_id = year.old.summary["mlflow_run_id"]
    gone = client.get_run(run_id)
    assert gone.info.lifecycle_stage == "deleted"
    assert not Path(str(gone.info.artifact_uri).removeprefix("file://")).exists()
    assert (
        client.get_model_version_by_alias("tiny", "champion").tags["poisonwatch.audit_id"]
        == (year.new.summary["audit_id"])
    )
    experiment = client.get_experiment_by_name("tiny")
    deleted = client.search_runs([experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert run_id in {run.info.run_id for run in deleted}


def test_drills_go_too_and_the_last_one_stays(
    year: Year, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their run directories and their MLflow runs; the dry run says so."""
    folder = year.file.parent
    drills = [
        leave_drill(folder, f"drill-{number}", f"2025-01-0{number}T00:00:00+00:00")
        for number in range(1, 6)
    ]
    for number in (1, 5):
        open_audit_run(year.config, f"drill-{number}", "drill")
    capsys.readouterr()
    assert run("prune", str(year.file)) == 0
    shown = capsys.readouterr().out
    assert "2 drills (" in shown
    assert "stay: 3 drills: 3 among the last" in shown
    assert run("prune", str(year.file), "--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)["drills"]
    assert [gone["path"] for gone in told["removals"]] == [str(path) for path in drills[:2]]
    assert told["kept"] == {"among the last": 3}
    assert [path.is_dir() for path in drills] == [False, False, True, True, True]
    left = runs_of(year.config, "drill")
    assert [each.data.tags["poisonwatch.audit_id"] for each in left] == ["drill-5"]


def test_an_audit_prunes_at_its_end_where_the_audit_file_says_so(
    year: Year, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That MLflow is down is a warning; the champion stays by what the ledger knows of it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = year.file.parent
    append(folder / "rows.jsonl", benign(6, start=900))
    settings = yaml.safe_load(year.file.read_text())
    settings["keep"] = {**LITTLE, "prune": "after-audit"}
    settings["tracking"] = "http://127.0.0.1:9"
    other = folder / "after.yaml"
    other.write_text(yaml.safe_dump(settings))
    outcome = audit_inline(load_config(other), folder / "runs" / "last")
    assert outcome.summary["counts"]["new"] == 6
    assert len(outcome.warnings) == 1
    assert [path.run_dir.is_dir() for path in (year.old, year.new, outcome)] == [False, True, True]


def test_a_ledger_in_postgresql_is_pruned_too(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An audit without new rows leaves a line, and what is old goes; the rest verifies."""
    with postgres_server() as url:
        settings = {"tracking": mlflow_store(tmp_path), "keep": LITTLE, "state": url, **QUIET}
        file = write_audit(tmp_path, tiny_folder, rows=benign(24), **settings)
        old, nothing = audit(file, "old"), audit(file, "nothing")
        append(tmp_path / "rows.jsonl", benign(12, start=500))
        year = Year(file, old, nothing, audit(file, "new"))
        assert year.nothing.summary["nothing_new"]
        assert run("prune", str(file), "--yes") == 0
        assert [path.exists() for path in (old.run_dir, nothing.run_dir)] == [False, False]
        assert year.new.run_dir.is_dir()
        found = year.verify()
        assert (found.is_whole, found.audits, found.run_dirs, found.pruned) == (True, 3, 1, 1)
        capsys.readouterr()
        assert run("history", str(file), "--json") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["mlflow"] for line in lines] == ["finished", "no run", "pruned"]
