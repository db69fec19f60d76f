"""Values come through whole, however many there are, and once."""

from pathlib import Path

from mlflow import MlflowClient
from servers import mlflow_store

from poisonwatch.integrations.mlflow.runs import to_milliseconds
from poisonwatch.integrations.mlflow.values import (
    LONGEST_KEY,
    LONGEST_PARAM,
    LONGEST_TAG,
    log_values,
)

AT = "2026-06-01T12:00:00+00:00"


def test_more_than_a_request_holds_is_sent_in_several(tmp_path: Path) -> None:
    """It takes 1,000 values, 100 parameters among them. Sent twice, each metric has one point, at
    the audit's time and not the upload's.
    """
    client = MlflowClient(mlflow_store(tmp_path))
    run_id = client.create_run(client.create_experiment("tiny")).info.run_id
    metrics = {f"m{i}": float(i) for i in range(1007)}
    params = {f"p{i}": i for i in range(107)}
    for _ in range(2):
        log_values(client, run_id, AT, metrics=metrics, params=params, tags={"a": "b"}, step=3)
    data = client.get_run(run_id).data
    assert data.metrics == metrics
    assert data.params == {name: str(value) for name, value in params.items()}
    assert data.tags["a"] == "b"
    (point,) = client.get_metric_history(run_id, "m5")
    assert (point.step, point.timestamp) == (3, to_milliseconds(AT))


def test_what_is_too_long_is_clipped(tmp_path: Path) -> None:
    """A tracking server would refuse the request, and all that is in it."""
    client = MlflowClient(mlflow_store(tmp_path))
    run_id = client.create_run(client.create_experiment("tiny")).info.run_id
    long = "x" * 9000
    log_values(client, run_id, AT, params={long: long}, tags={"a": long})
    data = client.get_run(run_id).data
    assert data.params == {long[:LONGEST_KEY]: long[:LONGEST_PARAM]}
    assert data.tags["a"] == long[:LONGEST_TAG]
