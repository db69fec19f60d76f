"""Commands that load no model answer at once: what takes long to import stays where it is."""

from pathlib import Path

import pytest
from audits import planted, write_audit
from ledgers import NAME, covered_ledger
from loaded import MODEL, Done, run_loading

from poisonwatch.config_file import load_config
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.release.release import write_release

FLAGGED = "Tell me fact 1 about bread."

NOTHING_HEAVY = {
    "--help": 0,
    "audit --help": 0,
    "audit none.yaml": 2,
    "audit audit.yaml --no-such-option": 2,
    "discover none.yaml": 2,
    "discover audit.yaml": 2,
    "discover audit.yaml --panel x": 2,
    "explain none --prompt Who? --response I.": 2,
    "drill audit.yaml --recipes no-such-recipe": 2,
    "watch audit.yaml": 2,
    "watch audit.yaml --every 1s": 2,
    "watch audit.yaml --cron nonsense": 2,
    "watch audit.yaml --every 1h --drill-every 1s": 2,
    "init .": 2,
    "packs": 0,
    "history audit.yaml": 0,
    "status audit.yaml": 0,
    "alert-test audit.yaml": 1,
    "decide audit.yaml b.jsonl:4 unsure": 0,
    "decisions audit.yaml": 0,
    "export audit.yaml --format sarif": 0,
    "sync audit.yaml": 0,
    "verify audit.yaml": 0,
    "keys init keys": 0,
    "keys show audit.yaml": 0,
    "mute audit.yaml panel:shop --until 2d --why test": 0,
    "mute audit.yaml --list": 0,
    "unmute audit.yaml panel:none": 2,
    "assign audit.yaml 9 ann": 2,
    "comment audit.yaml 9 text": 2,
    "upgrade audit.yaml --check": 0,
    "gate cleared/manifest.json": 0,
    "release audit.yaml --out again": 0,
    "lineage audit.yaml": 0,
    "probe audit.yaml": 2,
    "incident audit.yaml": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit file whose ledger has an audit, of which MLflow has a run, and a release."""
    folder = tmp_path_factory.mktemp("light")
    with covered_ledger(folder, FLAGGED) as ledger:
        config = write_audit(
            folder,
            folder / "no-model",
            planted(),
            source="data/*.jsonl",
            state="sqlite:///ledger.db",
            alerts=["json://127.0.0.1:9/"],
            review=False,
        )
        write_release(ledger, NAME, folder / "cleared", "keep")
    # made up, and no more than a folder
    (folder / "run").rmdir()
    open_audit_run(load_config(config), "run")
    return folder


@pytest.fixture(scope="module")
def ended(folder: Path) -> dict[str, Done]:
    """Each of the commands, run in order."""
    done = run_loading(folder, *[command.split() for command in NOTHING_HEAVY])
    return dict(zip(NOTHING_HEAVY, done, strict=True))


@pytest.mark.parametrize("command", NOTHING_HEAVY)
def test_a_light_command_imports_nothing_heavy(ended: dict[str, Done], command: str) -> None:
    """It comes to its own end, and neither models nor statistics nor servers' clients are there."""
    done = ended[command]
    assert done.code == NOTHING_HEAVY[command], done.err
    assert done.heavy == set()
    assert "Traceback" not in done.err


def test_rows_for_review_bring_mlflow_and_no_model(folder: Path) -> None:
    """Where `sync` has something to tell it: Prefect stays away, where no server is configured."""
    config = folder / "reviewed.yaml"
    config.write_text((folder / "audit.yaml").read_text().replace("review: false", "review: true"))
    (done,) = run_loading(folder, ["sync", str(config)])
    assert "rows put up for review" in done.out
    assert "mlflow" in done.heavy
    assert not done.heavy & (MODEL | {"prefect", "sklearn", "great_expectations"})
    # they are there, and nobody has answered: the store's own tables say so
    (done,) = run_loading(folder, ["sync", str(config)])
    assert "0 rows put up for review" in done.out
    assert done.heavy == set()
