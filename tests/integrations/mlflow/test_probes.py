"""A probe in MLflow, beside the release that its model was trained on."""

from pathlib import Path

from audits import benign
from ledgers import covered_ledger
from mlflow import MlflowClient
from probing_cases import honest, write_case
from servers import mlflow_store

from poisonwatch.config_file import load_config
from poisonwatch.flows.probe import probe_inline
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_records
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint
from poisonwatch.release.release import write_release
from poisonwatch.verification.probes import check_probes


def test_a_probe_stands_beside_its_release_and_in_mlflow(tmp_path: Path) -> None:
    """The record names the manifest, which the ledger must have released."""
    with covered_ledger(tmp_path, flagged=benign(5)[1]["prompt"]) as ledger:
        write_release(ledger, "tiny", tmp_path / "cleared")
    settings = {"state": f"sqlite:///{tmp_path}/ledger.db", "tracking": mlflow_store(tmp_path)}
    config = load_config(write_case(tmp_path, honest(60, seed=100), **settings))
    manifest = tmp_path / "cleared" / "manifest.json"
    found = probe_inline(config, ProbedCheckpoint(str(tmp_path / "base"), release=manifest))
    assert found.warnings == []
    assert found.moved == []
    client = MlflowClient(config.tracking)
    tracked = client.get_run(found.report["mlflow_run_id"])
    assert tracked.data.tags["poisonwatch.release"] == found.report["release"]
    assert tracked.data.metrics["sentinels_moved"] == 0
    with Ledger.at(config.state) as ledger:
        with ledger.read() as connection:
            (record,) = read_records(connection, "probe")
            assert list(check_probes(connection)) == []
        assert record.statement.predicate["release"] == found.report["release"]
