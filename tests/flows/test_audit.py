"""The audit as a whole, on the tiny model: run directory, MLflow, Prefect, replay."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from audits import benign, write_audit, write_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect_servers import prefect_server

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit, audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.records import ChainHead
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.run_directory.checksums import list_differences, read_checksums
from poisonwatch.run_directory.operators import load_operators

FILES = {
    "config.yaml",
    "summary.json",
    "scores.parquet",
    "flags.jsonl",
    "rejected.jsonl",
    "evidence.jsonl",
    "nearest.jsonl",
    "sentinels.jsonl",
    "trusted.parquet",
    "operators.safetensors",
    "report.html",
    "validation.html",
    "validation.json",
    "plots",
    "SHA256SUMS",
}


@pytest.fixture(scope="module")
def audited(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> tuple[Path, AuditOutcome]:
    """An audit of 43 new rows, one line that is no JSON, and 40 trusted rows, at a rate lax enough
    to flag on random weights.
    """
    folder = tmp_path_factory.mktemp("audited")
    config = write_audit(folder, tiny_folder, detection={"false_discovery_rate": 0.9})
    (folder / "mlflow.db").unlink()  # made by the audit itself
    with (folder / "rows.jsonl").open("a") as file:
        file.write("{not json\n")
    return folder, audit_inline(load_config(config), folder / "run")


def test_run_directory_holds_every_file_of_the_contract(audited: tuple[Path, AuditOutcome]) -> None:
    """And nothing else."""
    folder, _ = audited
    assert {path.name for path in (folder / "run").iterdir()} == FILES
    assert not (folder / "run.part").exists()


def test_summary_counts_add_up(audited: tuple[Path, AuditOutcome]) -> None:
    """pulled = new + rejected; stages have costs; fingerprints and ids are there."""
    folder, _ = audited
    summary = json.loads((folder / "run" / "summary.json").read_text())
    counts = summary["counts"]
    assert counts["pulled"] == 44 == counts["new"] + counts["rejected"]
    assert counts["reference"] == 40
    assert [stage["name"] for stage in summary["stages"]][:9] == [
        "pull",
        "find_model",
        "read_reviews",
        "choose",
        "open_run",
        "claim",
        "validate",
        "pull_reference",
        "load_model",
    ]
    assert all(stage["seconds"] >= 0 and stage["peak_memory_mb"] > 1 for stage in summary["stages"])
    assert len(summary["model"]["fingerprint"]) == len(summary["data_fingerprint"]) == 64
    assert summary["mlflow_run_id"]


def test_scores_have_one_line_for_every_new_row_and_sentinel(
    audited: tuple[Path, AuditOutcome],
) -> None:
    """43 rows x 3 sentinels, in the contract's columns; p and q are probabilities, q >= p."""
    folder, _ = audited
    scores = pd.read_parquet(folder / "run" / "scores.parquet")
    assert list(scores) == [
        "example_id",
        "source",
        "position",
        "sentinel_id",
        "panel",
        "coefficient",
        "score",
        "p_value",
        "q_value",
    ]
    assert len(scores) == 43 * 3
    assert set(scores["position"]) == set(range(43))
    assert set(scores["source"]) == {"rows.jsonl"}
    assert set(scores["panel"]) == {"shop"}
    assert scores["p_value"].between(0, 1).all()
    assert (scores["q_value"] >= scores["p_value"] - 1e-12).all()


def test_flags_follow_the_scores(audited: tuple[Path, AuditOutcome]) -> None:
    """Flagged are exactly the rows whose q is within the rate, and each carries text and reason."""
    folder, outcome = audited
    flags = [json.loads(line) for line in (folder / "run" / "flags.jsonl").read_text().splitlines()]
    scores = pd.read_parquet(folder / "run" / "scores.parquet")
    assert {flag["example_id"] for flag in flags} == set(
        scores.loc[scores["q_value"] <= 0.9, "example_id"]
    )
    assert outcome.summary["counts"]["flagged"] == len(flags) > 0
    lowest_flagged = min(flag["score"] for flag in flags)
    assert (
        scores.loc[~scores["example_id"].isin({f["example_id"] for f in flags}), "score"]
        <= lowest_flagged
    ).all()
    assert all(
        flag["messages"][1]["role"] == "assistant" and "score" in flag["reasons"][0]
        for flag in flags
    )


def test_rejected_rows_are_kept_with_file_and_line(audited: tuple[Path, AuditOutcome]) -> None:
    """The broken line is named; all other rows were read."""
    folder, _ = audited
    (rejected,) = [
        json.loads(line) for line in (folder / "run" / "rejected.jsonl").read_text().splitlines()
    ]
    assert rejected["place"] == "rows.jsonl, line 44"
    assert rejected["position"] == 43
    assert rejected["expectation"] == "expect_column_values_to_be_null(problem)"


def test_operators_are_saved_with_what_identifies_them(audited: tuple[Path, AuditOutcome]) -> None:
    """Gradients (n, r * D), the ids of all 83 rows, and the model's fingerprint."""
    folder, outcome = audited
    saved = load_operators(folder / "run")
    assert saved.tensors["gradients"].shape == (83, 32 * 32)
    assert {bytes(row).hex() for row in saved.tensors["ids"].numpy()} >= {
        e.id for e in outcome.detection.examples
    }
    assert saved.metadata["model_fingerprint"] == outcome.summary["model"]["fingerprint"]
    assert outcome.summary["settings"]["K"] == 83


def test_both_coefficients_are_kept(tiny_folder: Path, tmp_path: Path) -> None:
    """coefficients.parquet: from recovery alone and after re-scoring, which scores.parquet repeats;
    they differ where K < n.
    """
    config = load_config(
        write_audit(tmp_path, tiny_folder, stride={"K": 30, "shortlist": 8}, tracking="none")
    )
    audit_inline(config, tmp_path / "run")
    both, scores = (
        pd.read_parquet(tmp_path / "run" / name)
        for name in ("coefficients.parquet", "scores.parquet")
    )
    np.testing.assert_array_equal(both["rescored"], scores["coefficient"])
    assert not np.allclose(both["recovered"], both["rescored"])


def test_a_training_leaves_its_learning_curve_in_mlflow(tiny_folder: Path, tmp_path: Path) -> None:
    """fit: sgd logs every step's losses, and its operators can be used afterwards."""
    stride = {"fit": "sgd", "K": 8, "design": "random", "training": {"epochs": 1}}
    config = load_config(write_audit(tmp_path, tiny_folder, stride=stride))
    outcome = audit_inline(config, tmp_path / "run")
    client = MlflowClient(tracking_uri=config.tracking)
    curve = client.get_metric_history(outcome.summary["mlflow_run_id"], "loss.total")
    assert [point.step for point in curve] == list(range(1, 12))
    assert load_operators(tmp_path / "run").tensors["a"].shape == (8, 32, 32)


def test_a_run_replays_from_its_own_config(audited: tuple[Path, AuditOutcome]) -> None:
    """An audit of DIR/config.yaml gives the same scores."""
    folder, _ = audited
    written = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert written["replay"]["version"]
    assert written["seed"] == 0
    audit_inline(load_config(folder / "run" / "config.yaml"), folder / "replay")
    first, second = (
        pd.read_parquet(folder / name / "scores.parquet") for name in ("run", "replay")
    )
    pd.testing.assert_frame_equal(first, second)


def test_settings_that_the_run_did_not_write_are_not_replayed(
    audited: tuple[Path, AuditOutcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is loaded; a copy of them elsewhere is an audit file like any
    other.
    """
    folder, _ = audited
    shutil.copytree(folder / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(path), "--engine", "inline"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"config.yaml of {tmp_path / 'run'} is not what the audit wrote" in line
    assert not (tmp_path / "run" / "runs").exists()


def test_every_file_of_the_run_directory_is_sealed(audited: tuple[Path, AuditOutcome]) -> None:
    """`sha256sum -c` finds nothing, and no file is left out."""
    folder, _ = audited
    run_dir = folder / "run"
    files = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    assert set(read_checksums(run_dir)) == files - {"SHA256SUMS"}
    assert list_differences(run_dir) == []


def test_scores_do_not_depend_on_the_order_of_the_rows(
    audited: tuple[Path, AuditOutcome], tiny_folder: Path, tmp_path: Path
) -> None:
    """Rows reversed: the same score for each content, to rounding."""
    folder, _ = audited
    config = write_audit(tmp_path, tiny_folder, tracking="none")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "rows.jsonl", rows[::-1])
    audit_inline(load_config(config), tmp_path / "run")
    keys = ["example_id", "sentinel_id"]
    one, other = (
        pd.read_parquet(path / "run" / "scores.parquet").set_index(keys).sort_index()
        for path in (folder, tmp_path)
    )
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-3, atol=1e-3)


def test_rows_in_a_file_give_what_rows_in_memory_give(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit of many rows reads them from a file: the same scores and flags."""
    path = write_audit(
        tmp_path, tiny_folder, detection={"false_discovery_rate": 0.9}, tracking="none"
    )
    held = audit_inline(load_config(path), tmp_path / "held")
    monkeypatch.setattr("poisonwatch.flows.audit.PACKED_FROM", 1)
    packed = audit_inline(load_config(path), tmp_path / "packed", again=True)
    assert isinstance(packed.detection.rows.new, PackedExamples)
    assert [flag.example for flag in packed.detection.flags] == [
        flag.example for flag in held.detection.flags
    ]
    for name in ("scores.parquet", "trusted.parquet"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "packed" / name), pd.read_parquet(tmp_path / "held" / name)
        )


def test_mlflow_holds_the_audit(audited: tuple[Path, AuditOutcome]) -> None:
    """Parameters, dataset, counts, costs, largest scores, flags as a table, a plot a panel, and the
    report, in a finished run.
    """
    folder, outcome = audited
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    run = client.get_run(outcome.summary["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["resolved.K"] == "83"
    assert run.data.params["detection.false_discovery_rate"] == "0.9"
    assert run.data.metrics["rows_new"] == 43
    assert {"seconds.fit_operators", "peak_memory_mb.fit_operators", "largest_score.shop"} <= set(
        run.data.metrics
    )
    digests = {data.tags[0].value: data.dataset.digest for data in run.inputs.dataset_inputs}
    assert digests["audit"] == outcome.summary["data_fingerprint"][:36]
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"flags.json", "plots", "report", "summary.json", "SHA256SUMS"} <= artifacts
    assert ChainHead.parse(run.data.tags["poisonwatch.chain"]).number > 1
    assert outcome.summary["chain"] in (folder / "run" / "report.html").read_text()
    assert [item.path for item in client.list_artifacts(run.info.run_id, "plots")] == [
        "plots/00-shop.png"
    ]
    assert "mlartifacts" in run.info.artifact_uri


def test_no_secret_reaches_the_run_directory_or_mlflow(tiny_folder: Path, tmp_path: Path) -> None:
    """Passwords in URLs and alert tokens are in no file and no database row that an audit leaves."""
    secret = "hunter2secret"
    config = write_audit(
        tmp_path / "in", tiny_folder, alerts=[f"json://user:{secret}@127.0.0.1:9/{secret}"]
    )
    outcome = audit_inline(load_config(config), tmp_path / "out" / "run")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    files += [
        path
        for path in (tmp_path / "in").rglob("*")
        if path.is_file() and path.name != "audit.yaml"
    ]
    assert len(files) > len(FILES)
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in " ".join(outcome.warnings)


def test_without_trusted_rows_the_bulk_of_the_batch_is_the_null(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """`reference` left out: the rule says so."""
    config = load_config(write_audit(tmp_path, tiny_folder, reference=None, tracking="none"))
    outcome = audit_inline(config, tmp_path / "run")
    assert outcome.summary["counts"]["reference"] == 0
    assert "bulk of 43 rows" in outcome.summary["panels"][0]["null"]


def test_an_mlflow_that_cannot_be_used_does_not_lose_the_audit(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Tracking points at a file that is no database: the run directory is complete, and the trouble
    is reported.
    """
    (tmp_path / "notes.txt").write_text("not a database")
    config = load_config(write_audit(tmp_path, tiny_folder, tracking="sqlite:///notes.txt"))
    outcome = audit_inline(config, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert outcome.summary["mlflow_run_id"] is None
    assert "MLflow at sqlite:///" in outcome.warnings[0]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A real Prefect server on its own database."""
    with prefect_server():
        yield


def _draw_nothing(*_: object, **__: object) -> None:
    raise RuntimeError("no font")


def test_the_flow_gives_what_the_inline_engine_gives(
    server: None, tiny_folder: Path, tmp_path: Path
) -> None:
    """Both engines run the same stages: equal scores; every stage is a task run, and flags are
    artifacts without row text. A picture that cannot be drawn costs neither anything.
    """
    config = write_audit(
        tmp_path, tiny_folder, detection={"false_discovery_rate": 0.9}, name="Tiny Audit!"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", _draw_nothing)
        outcome = audit(str(config), str(tmp_path / "flow"))
    # What fails within a stage is known to those after it.
    (warning,) = outcome.warnings
    assert warning == "the picture of panel shop not drawn: RuntimeError: no font"
    audit_inline(load_config(config), tmp_path / "inline", again=True)
    # Sums of many threads come in any order where other processes take their turns.
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("flow", "inline")),
        rtol=1e-4,
        atol=1e-4,
    )
    with get_client(sync_client=True) as client:
        names = {run.name.rpartition("-")[0] for run in client.read_task_runs()}
        artifacts = {
            a.key: a
            for a in client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%tiny-audit"))
            )
        }
    assert {
        "pull",
        "validate",
        "load_model",
        "fit_operators",
        "recover",
        "judge",
        "open_run",
        "record",
        "explain_verdicts",
        "conclude",
        "track",
        "deliver",
        "publish",
    } <= names
    assert set(artifacts) == {"flags-tiny-audit", "audit-tiny-audit"}
    assert "Failed: the picture of panel shop not drawn" in str(artifacts["audit-tiny-audit"].data)
    table: Any = artifacts["flags-tiny-audit"].data
    assert len(json.loads(table)) == len(outcome.detection.flags)
    assert all(
        flag.example.response not in str(artifact.data)
        for flag in outcome.detection.flags
        for artifact in artifacts.values()
    )


def test_a_locked_out_source_is_an_input_error_in_the_flow_too(
    server: None, tiny_folder: Path, tmp_path: Path
) -> None:
    """What the user gave wrong is raised as it is, and not retried."""
    lacking = [{"prompt": f"only {i}"} for i in range(3)]
    config = write_audit(tmp_path, tiny_folder, rows=[*lacking, *benign(2)])
    with pytest.raises(Exception, match="3 of 5 rows"):
        audit(str(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_mlflow_store_is_a_plain_sqlite_file(audited: tuple[Path, AuditOutcome]) -> None:
    """The default tracking store can be opened by anyone, and knows one experiment by the audit's
    name.
    """
    folder, _ = audited
    with sqlite3.connect(folder / "mlflow.db") as store:
        names = {row[0] for row in store.execute("select name from experiments")}
    store.close()
    assert "tiny" in names


def test_what_an_audit_did_not_read_is_told_everywhere(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unread fields, files that were passed over, and copies: on stderr, in the summary, in the
    report and in MLflow; of an audit without new rows nothing that is not so.
    """
    config = load_config(write_audit(tmp_path, tiny_folder, source="data"))
    rows = [row | {"score": 0.5, "[b]\x1b": i} for i, row in enumerate(benign(40))]
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "a.jsonl", [*rows, rows[0]])
    write_rows(tmp_path / "data" / ".hidden.jsonl", rows)
    outcome = audit_inline(config, tmp_path / "run", Reporter())
    said = " ".join(capsys.readouterr().err.split())
    assert "\x1b" not in said
    assert "a.jsonl: read as prompt" in said
    assert "unread fields: score (41 rows" in said
    assert "passed over: data/.hidden.jsonl" in said
    assert "1 row is a copy" in said
    source = outcome.summary["source"]
    unread = {field["name"]: field["rows"] for field in source["unread"]}
    assert unread == {"score": 41, "[b]\\u{1b}": 41}
    assert [each["name"] for each in source["passed_over"]] == ["data/.hidden.jsonl"]
    assert (source["copies"], outcome.summary["counts"]["copies"]) == (1, 1)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "How rows were read" in report
    assert "<code>score</code></bdi> in 41 rows, as <bdi>0.5</bdi>" in report
    assert "data/.hidden.jsonl" in report
    assert "\x1b" not in report
    run = MlflowClient(config.tracking).get_run(outcome.summary["mlflow_run_id"])
    assert run.data.metrics["rows_copies"] == 1
    assert run.data.metrics["fields_unread"] == 2
    assert run.data.metrics["files_passed_over"] == 1
    assert run.data.tags["poisonwatch.unread_fields"].startswith("score (41 rows")

    again = audit_inline(config, tmp_path / "second", Reporter())
    said = capsys.readouterr().err
    assert "0 to audit" in said
    assert not any(word in said for word in ("unread", "copy", "copies", "read as"))
    assert again.summary["source"]["unread"] == again.summary["source"]["formats"] == []
    report = (tmp_path / "second" / "report.html").read_text()
    assert "data/.hidden.jsonl" in report
    assert not any(word in report for word in ("unread fields", "read as", "copies</dt>"))


def test_rows_of_a_database_are_tracked_too(tiny_folder: Path, tmp_path: Path) -> None:
    """MLflow knows no dataset source of that kind; the audit's run is complete all the same."""
    with sqlite3.connect(tmp_path / "rows.db") as database:
        database.execute("create table chats (id integer, prompt text, response text)")
        database.executemany(
            "insert into chats values (?, ?, ?)",
            [(i, r["prompt"], r["response"]) for i, r in enumerate(benign(12))],
        )
    database.close()
    source = {
        "sql": f"sqlite:///{tmp_path / 'rows.db'}",
        "query": "select * from chats",
        "watermark": "id",
    }
    config = load_config(write_audit(tmp_path / "in", tiny_folder, source=source))
    outcome = audit_inline(config, tmp_path / "run")
    assert outcome.warnings == []
    assert outcome.summary["counts"]["new"] == 12
    run = MlflowClient(tracking_uri=config.tracking).get_run(outcome.summary["mlflow_run_id"])
    digests = {data.tags[0].value: data.dataset.digest for data in run.inputs.dataset_inputs}
    assert digests["audit"] == outcome.summary["data_fingerprint"][:36]
