"""MLflow holds every audit once, whatever happens to the server, and whenever the upload comes
through.
"""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_audit
from ledgers import append
from servers import free_port, mlflow_server, mlflow_store
from slow_tests import slow
from tracking import LAX, client_of, held, list_names, owe, runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError, RunError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.flows.reporter import Reporter
from poisonwatch.integrations.mlflow.owed import upload_owed
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.ledger.history import PastAudit, list_past_audits, list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.run_directory.checksums import list_differences


def test_one_run_shows_the_trend(tracked: tuple[AuditConfig, Ledger]) -> None:
    """A point an audit at its number and time; rates where there were rows; the run itself is ended
    well.
    """
    config, _ = tracked
    (trend,) = runs_of(config, "trend")
    assert trend.info.status == "FINISHED"
    client = client_of(config)
    history = {
        name: client.get_metric_history(trend.info.run_id, name) for name in trend.data.metrics
    }
    followed = {
        "flag_rate",
        "rows_new",
        "rows_flagged",
        "rows_unjudged",
        "rows_rejected",
        "parts_failed",
        "seconds_total",
        "peak_memory_mb",
    }
    assert set(history) == followed | {"largest_score.shop", "calibration.shop"}
    assert [(point.step, point.value) for point in history["rows_new"]] == [(1, 43), (2, 0)]
    assert [point.step for point in history["flag_rate"]] == [1]
    assert [point.step for point in history["seconds_total"]] == [1, 2]


def test_ledger_and_run_directory_name_run_and_experiment(
    tracked: tuple[AuditConfig, Ledger],
) -> None:
    """Both summaries agree with MLflow."""
    config, ledger = tracked
    for past, run in zip(reversed(list_past_audits(ledger)), runs_of(config), strict=True):
        written = json.loads((past.run_dir / "summary.json").read_text())
        for summary in (written, past.summary):
            assert (summary["mlflow_run_id"], summary["mlflow_experiment_id"]) == (
                run.info.run_id,
                run.info.experiment_id,
            )


def test_what_is_sent_twice_is_there_once(tracked: tuple[AuditConfig, Ledger]) -> None:
    """Metrics, trend, data sets, files, the table of flags, model versions: the second upload
    changes nothing.
    """
    config, ledger = tracked
    before = held(config)
    owe(ledger)
    assert upload_owed(ledger, config) == 2
    assert held(config) == before
    assert [name for name, _, _ in before["versions"]] == ["tiny"]
    assert upload_owed(ledger, config) == 0


def test_an_upload_that_broke_off_is_finished_by_the_next(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """The report cannot be stored, after all else was: the audit owes it; later it is all there,
    once.
    """
    config = load_config(write_audit(tmp_path, tiny_folder, tracking=mlflow_store(tmp_path), **LAX))
    run_id = open_audit_run(config, "another")["mlflow_run_id"]
    artifacts = Path(
        str(client_of(config).get_run(run_id).info.artifact_uri).removeprefix("file://")
    ).parent.parent

    class Blocker(Reporter):
        """Puts a file where the run's folder for the report will be, while the audit runs."""

        def note_rows(self, *args: Any, **more: Any) -> None:
            blocked = artifacts / runs_of(config)[-1].info.run_id / "artifacts" / "report"
            blocked.parent.mkdir(parents=True)
            blocked.write_text("in the way")

    outcome = audit_inline(config, tmp_path / "run", Blocker(quiet=True))
    assert [trouble.startswith("MLflow at sqlite:///") for trouble in outcome.warnings] == [True]
    run = next(
        run for run in runs_of(config) if run.info.run_id == outcome.summary["mlflow_run_id"]
    )
    assert (run.info.status, "flags.json" in list_names(client_of(config), run.info.run_id)) == (
        "RUNNING",
        True,
    )
    (artifacts / run.info.run_id / "artifacts" / "report").unlink()
    with Ledger.at(config.state) as ledger:
        assert upload_owed(ledger, config) == 1
        whole = held(config)
        owe(ledger)
        upload_owed(ledger, config)
    assert held(config) == whole
    sent = whole["runs"][run.info.run_id]
    assert len(sent["flags"]) == outcome.summary["counts"]["flagged"] > 0
    assert {"report/report.html", "report/validation.html"} <= set(sent["files"])


def test_what_an_audit_ran_with_is_told_not_what_is_set_now(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """No server at first: the run that is made later has the audit's time and its settings; the
    ledger gets its ids, and the run directory stays as the audit wrote it.
    """
    (tmp_path / "notes.txt").write_text("no database")
    config = load_config(write_audit(tmp_path, tiny_folder, tracking="sqlite:///notes.txt", **LAX))
    outcome = audit_inline(config, tmp_path / "run")
    assert outcome.summary["mlflow_run_id"] is None
    detection = config.detection.model_copy(update={"false_discovery_rate": 0.01})
    now = config.model_copy(update={"tracking": mlflow_store(tmp_path), "detection": detection})
    with Ledger.at(config.state) as ledger:
        assert upload_owed(ledger, now) == 1
        (past,) = list_past_audits(ledger)
    (run,) = runs_of(now)
    assert run.data.params["detection.false_discovery_rate"] == "0.5"
    assert run.info.start_time <= run.info.end_time
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert past.summary["mlflow_run_id"] == run.info.run_id
    assert written["mlflow_run_id"] is None
    assert list_differences(tmp_path / "run") == []


def test_an_interrupted_audit_s_run_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    """Its run is ended as killed by the next audit; it is no point of the trend."""
    config = load_config(
        write_audit(tmp_path, tiny_folder, rows=benign(12), tracking=mlflow_store(tmp_path))
    )

    class Interrupted(Reporter):
        """Somebody presses Ctrl-C."""

        def note_rows(self, *args: Any, **more: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_inline(config, tmp_path / "run", Interrupted(quiet=True))
    assert runs_of(config)[0].info.status == "RUNNING"
    audit_inline(config, tmp_path / "run")
    first, second = runs_of(config)
    assert (first.info.status, first.data.tags["poisonwatch.state"]) == ("KILLED", "interrupted")
    assert second.info.status == "FINISHED"
    (trend,) = runs_of(config, "trend")
    assert [
        p.step for p in client_of(config).get_metric_history(trend.info.run_id, "rows_new")
    ] == [2]


def test_an_audit_that_mlflow_refuses_keeps_back_no_other(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Somebody gave its run another parameter: it stays owed, and said; the audit after it is
    uploaded.
    """
    config = load_config(
        write_audit(tmp_path, tiny_folder, rows=benign(12), tracking=mlflow_store(tmp_path))
    )

    class Meddler(Reporter):
        """Gives the run a parameter of the audit's name, while the audit runs."""

        def note_rows(self, *args: Any, **more: Any) -> None:
            client_of(config).log_param(runs_of(config)[-1].info.run_id, "seed", "5")

    outcome = audit_inline(config, tmp_path / "one", Meddler(quiet=True))
    assert "refused an audit" in outcome.warnings[0]
    append(tmp_path / "rows.jsonl", benign(1, start=500))
    audit_inline(config, tmp_path / "two")
    first, second = runs_of(config)
    with Ledger.at(config.state) as ledger:
        with pytest.raises(OperationError, match="refused an audit"):
            upload_owed(ledger, config)
        assert [past.number for past in list_pending_audits(ledger, config.name, MLFLOW)] == [1]
    assert client_of(config).get_run(first.info.run_id).data.params["seed"] == "5"
    assert second.info.status == "FINISHED"


def test_a_run_directory_that_the_audit_did_not_write_is_not_uploaded(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Its audit stays owed until it is restored, and said; the audit after it is uploaded."""
    config = load_config(
        write_audit(tmp_path, tiny_folder, rows=benign(12), tracking=mlflow_store(tmp_path))
    )
    audit_inline(config, tmp_path / "one")
    append(tmp_path / "rows.jsonl", benign(1, start=500))
    audit_inline(config, tmp_path / "two")
    path = tmp_path / "one" / "rejected.jsonl"
    path.write_text("{}\n")
    with Ledger.at(config.state) as ledger:
        owe(ledger)
        with pytest.raises(RunError, match=r"rejected.jsonl of .*one is not what the audit wrote"):
            upload_owed(ledger, config)
        assert [past.number for past in list_pending_audits(ledger, config.name, MLFLOW)] == [1]
        path.write_text("")
        assert upload_owed(ledger, config) == 1


@slow
def test_a_server_that_stops_in_mid_audit_gets_everything_once_it_is_back(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The audit finishes, says so, and owes its run; then all of it is there, once, and so is the
    champion, whose old versions go.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    tracking = f"http://127.0.0.1:{port}"
    config = load_config(write_audit(tmp_path, tiny_folder, tracking=tracking, **LAX))
    with ExitStack() as server:
        server.enter_context(mlflow_server(tmp_path / "mlflow", port))

        class Stopper(Reporter):
            """Stops the server while the audit runs."""

            def note_rows(self, *args: Any, **more: Any) -> None:
                server.close()

        outcome = audit_inline(config, tmp_path / "run", Stopper(quiet=True))
    assert [
        trouble.startswith(f"MLflow at {tracking} cannot be reached: ")
        for trouble in outcome.warnings
    ] == [True]
    assert outcome.summary["counts"]["flagged"] == len(outcome.detection.flags) > 0
    with Ledger.at(config.state) as ledger:
        with pytest.raises(OperationError, match="cannot be reached"):
            upload_owed(ledger, config)
        with mlflow_server(tmp_path / "mlflow", port):
            assert upload_owed(ledger, config) == 1
            once = held(config)
            owe(ledger)
            assert upload_owed(ledger, config) == 1
            assert held(config) == once
            (run,) = runs_of(config)
            assert (run.info.run_id, run.info.status) == (
                outcome.summary["mlflow_run_id"],
                "FINISHED",
            )
            assert "report/report.html" in once["runs"][run.info.run_id]["files"]
            assert (
                len(once["runs"][run.info.run_id]["flags"]) == outcome.summary["counts"]["flagged"]
            )
            assert [(name, version) for name, version, _ in once["versions"]] == [("tiny", "1")]
            _old_versions_go(config, ledger, outcome, tmp_path / "mlflow" / "artifacts")
    assert capfd.readouterr().out == ""


def _old_versions_go(
    config: AuditConfig, ledger: Ledger, outcome: AuditOutcome, artifacts: Path
) -> None:
    """A server deletes their files as a folder of files does."""
    from poisonwatch.integrations.mlflow.registry import register_operators

    (past,) = list_past_audits(ledger)
    client = client_of(config)
    (run,) = runs_of(config)

    def later(day: int) -> PastAudit:
        return replace(
            past,
            audit_id=f"audit-{day}",
            summary={**past.summary, "created": f"2126-06-{day:02}T00:00:00+00:00"},
        )

    for day in (1, 2, 3):
        register_operators(client, run.info.experiment_id, run.info.run_id, later(day), ledger)
    assert sorted(v.version for v in client.search_model_versions("name = 'tiny'")) == [
        "2",
        "3",
        "4",
    ]
    assert len(list(artifacts.rglob("operators.safetensors"))) == 3
