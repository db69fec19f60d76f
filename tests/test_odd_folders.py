"""An audit's folder may be called anything: ledger, MLflow and rows are in it and nowhere else."""

from pathlib import Path

import pytest
from audits import benign, write_audit, write_rows

from poisonwatch.config_file import load_config
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger

NAME = "a?b #%41 [x]*"


def test_everything_of_an_audit_lies_in_its_folder_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is no pattern, no query and no escape: a folder that it would match is left alone."""
    folder, other, here = tmp_path / NAME, tmp_path / "axb #%41 xy", tmp_path / "here"
    here.mkdir()
    other.mkdir()
    write_rows(other / "rows.jsonl", benign(9))
    settings = {"source": "ro*.jsonl", "tracking": "sqlite:///mlflow.db"}
    config = load_config(write_audit(folder, tmp_path / "model", rows=benign(4), **settings))
    monkeypatch.chdir(here)
    with Ledger.at(config.state) as ledger, ledger.lock(config.name):
        assert ingest(ledger, config.name, config.source).new == 4
    open_audit_run(config, "one")
    assert {"mlflow.db", "poisonwatch.db"} <= {path.name for path in folder.iterdir()}
    assert list(here.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([NAME, other.name, "here"])
