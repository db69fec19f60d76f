"""Curves of sentinels in MLflow: in the trainer's run, or in one of their own."""

from pathlib import Path

import mlflow
from audits import write_audit
from mlflow import MlflowClient
from servers import mlflow_store

from poisonwatch.config_file import load_config
from poisonwatch.integrations.mlflow.training import TrainingCurves


def test_curves_go_to_the_trainers_run_where_one_is_active(tmp_path: Path) -> None:
    """It is left open: it is the trainer's."""
    config = load_config(write_audit(tmp_path, tmp_path, tracking="none"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_store(tmp_path / "trainer"))
    try:
        with mlflow.start_run() as run:
            curves = TrainingCurves.open(config, "mine")
            assert curves is not None
            curves.log({"poisonwatch/moved": 2}, step=5)
            curves.close()
            found = MlflowClient().get_run(run.info.run_id)
            assert found.data.metrics == {"poisonwatch/moved": 2}
            assert found.info.status == "RUNNING"
    finally:
        mlflow.set_tracking_uri(before)


def test_no_tracking_and_no_run_are_no_curves(tmp_path: Path) -> None:
    config = load_config(write_audit(tmp_path, tmp_path, tracking="none"))
    assert TrainingCurves.open(config, "mine") is None


def test_a_server_that_cannot_be_used_costs_its_curves_alone(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("not a database")
    tracking = f"sqlite:///{tmp_path}/no.db"
    config = load_config(write_audit(tmp_path, tmp_path, tracking=tracking))
    assert TrainingCurves.open(config, "mine") is None
