"""The drill as a command, on the tiny model: table, run directory, MLflow, errors."""

import json
import re
import shlex
from pathlib import Path

import pytest
from audits import TOPICS, benign, write_audit
from mlflow import MlflowClient
from prefect_servers import prefect_server

from poisonwatch.config_file import load_config
from poisonwatch.drills.planting import PastVerdicts
from poisonwatch.flows.cli.app import app, main
from poisonwatch.flows.drill import drill
from poisonwatch.ledger.batches import find_suspected_ids
from poisonwatch.ledger.decisions import read_decisions, record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.checksums import read_checksums
from poisonwatch.tasks.drill import look_up_verdicts, track_drill

RATE = {"false_discovery_rate": 0.9}
SMALL = {"max_tokens": 96, "r": 8}
ROWS = benign(60)


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_audit(
        tmp_path_factory.mktemp("drilled"), tiny_folder, rows=ROWS, detection=RATE, stride=SMALL
    )


def test_a_drill_leaves_its_table_its_files_and_an_mlflow_run(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 although rows are flagged; one sentence a recipe; drill.json and config.yaml;
    metrics by recipe and count.
    """
    where = config.parent / "runs" / "first"
    asked = [
        "--recipes",
        "identity",
        "trigger-refusal",
        "--counts",
        "2",
        "4",
        "--repeats",
        "2",
        "--seed",
        "7",
    ]
    assert run("drill", str(config), "--run-dir", str(where), "--engine", "inline", *asked) == 0
    out = capsys.readouterr().out
    assert re.search(r"planted into \d+ clean rows", out)
    for recipe in ("identity", "trigger-refusal"):
        assert f"{recipe}: 4 rows of an attack like this would be found with probability " in out
    # The sentinels are on shops: each result stands beside that with the pack added.
    assert "identity, with pack identity added: 4 rows" in out
    assert "trigger-refusal, with pack over-refusal added: 4 rows" in out
    assert "+ over-refusal" in out
    assert out.count("false flags per 1,000 clean rows") == 4

    assert {path.name for path in where.iterdir()} == {"config.yaml", "drill.json", "SHA256SUMS"}
    assert set(read_checksums(where)) == {"config.yaml", "drill.json"}
    assert load_config(where / "config.yaml").seed == 7
    report = json.loads((where / "drill.json").read_text())
    assert report["plan"] == {
        "recipes": ["identity", "trigger-refusal"],
        "counts": [2, 4],
        "repeats": 2,
    }
    flagged = report["rows"].pop("flagged")
    assert report["rows"] == {
        "pulled": 60,
        "rejected": 0,
        "clean": 60 - flagged,
        "reference": 40,
        "suspected": 0,
    }
    assert [
        (power["recipe"], power["count"], power["with_pack"]) for power in report["powers"]
    ] == [
        (recipe, count, with_pack)
        for recipe in ("identity", "trigger-refusal")
        for count in (2, 4)
        for with_pack in (False, True)
    ]
    assert {power["pack"] for power in report["powers"]} == {"pack:identity", "pack:over-refusal"}
    assert [stage["name"] for stage in report["stages"]][-3:] == [
        "fit_planted",
        "rehearse",
        "open_run",
    ]
    assert all(sentence in out for sentence in report["sentences"])

    client = MlflowClient(f"sqlite:///{config.parent / 'mlflow.db'}")
    tracked = client.get_run(report["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    assert client.get_experiment(tracked.info.experiment_id).name == "tiny"
    assert tracked.data.tags["poisonwatch.kind"] == "drill"
    for power in report["powers"]:
        for name in ("recall", "probability", "false_flags"):
            key = f"{name}.{power['recipe']}.{power['count']}"
            if power["with_pack"]:
                key += ".with_pack"
            assert tracked.data.metrics[key] == power[name]
    assert tracked.data.metrics["false_flags"] == report["false_flags_per_1000"]
    assert {artifact.path for artifact in client.list_artifacts(report["mlflow_run_id"])} == {
        "config.yaml",
        "drill.json",
    }

    track_drill.fn(
        load_config(where / "config.yaml"), report, where
    )  # once more, as after a lost answer
    inside = client.search_runs(
        [tracked.info.experiment_id], f"tags.`mlflow.parentRunId` = '{tracked.info.run_id}'"
    )
    assert {run.info.status for run in inside} == {"FINISHED"}
    found = {
        tuple(run.data.params[name] for name in ("recipe", "count", "with_pack")): run.data
        for run in inside
    }
    assert len(inside) == len(found) == len(report["powers"])
    for power in report["powers"]:
        data = found[power["recipe"], str(power["count"]), str(power["with_pack"])]
        attributed = {"attributed": power["recall_by_attribution"]}
        assert (
            data.metrics
            == {name: power[name] for name in ("recall", "probability", "false_flags")} | attributed
        )
        assert (data.params["pack"], data.params["repeats"]) == (power["pack"], "2")


def test_without_a_run_directory_a_drill_lies_beside_the_audits(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """runs/drill-... below the audit file's folder."""
    assert (
        run(
            "drill",
            str(config),
            "--engine",
            "inline",
            "--recipes",
            "identity",
            "--counts",
            "1",
            "--repeats",
            "1",
        )
        == 0
    )
    (made,) = (config.parent / "runs").glob("drill-*")
    assert str(made / "drill.json") in capsys.readouterr().out.replace("\n", "")


def test_the_flow_does_what_the_inline_drill_does(config: Path) -> None:
    """The same powers at the same seed, as a Prefect flow with its tasks."""
    with prefect_server():
        outcome = drill(str(config), str(config.parent / "runs" / "flow"), ["identity"], [3], 1, 5)
    assert outcome.warnings == []
    assert (
        run(
            "drill",
            str(config),
            "--run-dir",
            str(config.parent / "runs" / "inline"),
            "--engine",
            "inline",
            "--recipes",
            "identity",
            "--counts",
            "3",
            "--repeats",
            "1",
            "--seed",
            "5",
        )
        == 0
    )
    reports = [
        json.loads((config.parent / "runs" / name / "drill.json").read_text())
        for name in ("flow", "inline")
    ]
    assert reports[0]["powers"] == reports[1]["powers"]


def test_rows_that_the_ledger_suspects_are_not_taken_as_clean(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """After an audit, those that it flagged and those that people called poison; a row that people
    called benign stays, whatever flags it. The ledger is left as it was.
    """
    config = write_audit(tmp_path, tiny_folder, rows=ROWS, detection=RATE, stride=SMALL)
    settings = load_config(config)
    assert look_up_verdicts.fn(settings) == PastVerdicts()
    assert run("audit", str(config), "--engine", "inline", "--quiet") in (0, 3)
    with Ledger.existing(settings.state) as ledger:
        flagged = find_suspected_ids(ledger)
        record_decision(ledger, "rows.jsonl:4", "poison")
        record_decision(ledger, "rows.jsonl:5", "benign")
        poison, benign = [decision.example_id for decision in read_decisions(ledger)]
    past = look_up_verdicts.fn(settings)
    assert past.suspected == (flagged | {poison}) - {benign}
    assert past.benign == {benign}
    asked = ["--recipes", "identity", "--counts", "1", "--repeats", "1", "--engine", "inline"]
    assert run("drill", str(config), "--run-dir", str(tmp_path / "run"), *asked) == 0
    report = json.loads((tmp_path / "run" / "drill.json").read_text())
    counts = report["rows"]
    assert counts["suspected"] == len(past.suspected)
    assert counts["clean"] == 60 - counts["suspected"] - counts["flagged"]
    assert "that the ledger holds as flagged or as poison" in report["notes"][0]
    assert look_up_verdicts.fn(settings) == past


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--recipes", "nothing"], "there is no recipe nothing: recipes are brand"),
        (["--counts", "0"], "--counts are 0: choose from 1 to 28"),
        (["--repeats", "0"], "--repeats is 0: choose at least 1"),
    ],
)
def test_what_cannot_be_drilled_is_said_in_one_line(
    config: Path, asked: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is loaded or written."""
    where = config.parent / "runs" / "never"
    assert run("drill", str(config), "--run-dir", str(where), "--engine", "inline", *asked) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"poisonwatch: {said}")
    assert len(error.splitlines()) == 1
    assert not where.exists()


def test_a_tracking_server_that_is_down_costs_a_warning(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results are there all the same."""
    (tmp_path / "notes.txt").write_text("no database")
    config = write_audit(
        tmp_path,
        tiny_folder,
        rows=ROWS[: len(TOPICS)],
        stride=SMALL,
        tracking="sqlite:///notes.txt",
    )
    asked = ["--recipes", "identity", "--counts", "1", "--repeats", "1", "--engine", "inline"]
    assert run("drill", str(config), "--run-dir", str(tmp_path / "run"), *asked) == 0
    assert "warning: MLflow at" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "drill.json").read_text())["mlflow_run_id"] is None


def test_help_ends_in_an_example_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the command and options that exist."""
    assert run("drill", "--help") == 0
    words = shlex.split(capsys.readouterr().out.split("Example:")[1])
    assert words[:2] == ["poisonwatch", "drill"]
    app.parse_args(words[1:])
