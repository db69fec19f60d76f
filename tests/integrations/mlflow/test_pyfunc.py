"""What MLflow loads: the rows behind answers."""

import mlflow
import pandas as pd
import pytest
from audits import FORBIDDEN
from mlflow import MlflowClient

from poisonwatch.config_file import load_config
from poisonwatch.ledger.history import PastAudit
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.stride.explain import explain_response


@pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning"
)  # by MLflow, of its own types
def test_the_champion_says_what_the_operators_say(
    audited: tuple[MlflowClient, PastAudit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """models:/NAME@champion, asked with two answers, gives the rows behind each: those of
    `explain`, places included.
    """
    client, past = audited
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        model = mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"top": 4})
    finally:
        mlflow.set_tracking_uri(before)
    asked = pd.DataFrame(
        {"prompt": ["What should I buy, number 1?", "Who?"], "response": [FORBIDDEN[1], "me"]}
    )
    found = model.predict(asked)
    assert found["question"].tolist() == [0] * 4 + [1] * 4
    assert found.loc[0, ["rank", "source", "position"]].tolist() == [1, "rows.jsonl", 41]
    saved = load_operators(past.run_dir)
    fitted = saved.load_on(load_pretrained(load_config(past.run_dir / "config.yaml").model))
    expected = explain_response(past.run_dir, fitted, "Who?", "me", saved.stride, top=4)
    assert found["example_id"][4:].tolist() == [row.example_id for row in expected]
    assert found["score"][4:].tolist() == pytest.approx([row.score for row in expected])
