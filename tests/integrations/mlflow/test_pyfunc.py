"""What MLflow loads: the rows behind answers."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from audits import FORBIDDEN
from mlflow import MlflowClient

from poisonwatch.config_file import load_config
from poisonwatch.errors import RunError
from poisonwatch.integrations.mlflow.pyfunc import _load_pyfunc
from poisonwatch.ledger.history import PastAudit
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.run_directory.checksums import write_checksums
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


@pytest.fixture
def version(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> tuple[Path, dict[str, object]]:
    """A copy of the files of the champion, with the settings that its MLmodel gives the loader."""
    client, _ = audited
    source = str(client.get_model_version("tiny", "1").source)
    shutil.copytree(source.removeprefix("file://"), tmp_path / "version")
    described = mlflow.models.Model.load(str(tmp_path / "version"))
    return tmp_path / "version", described.flavors["python_function"]["config"]


@pytest.mark.parametrize("name", ["operators.safetensors", "config.yaml", "scores.parquet"])
def test_a_version_whose_files_were_changed_names_no_rows(
    version: tuple[Path, dict[str, object]], name: str
) -> None:
    """Neither by itself nor together with its checksum, nor without any checksums."""
    folder, settings = version
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(RunError, match=rf"{name} of .* is not what the audit wrote"):
        _load_pyfunc(str(folder), settings)
    write_checksums(folder)
    with pytest.raises(RunError, match=r"SHA256SUMS of .* is not what the audit wrote"):
        _load_pyfunc(str(folder), settings)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(RunError, match=r"SHA256SUMS of .* is gone"):
        _load_pyfunc(str(folder), settings)


def test_scores_that_change_under_a_loaded_version_name_no_rows(
    version: tuple[Path, dict[str, object]],
) -> None:
    """They say which rows the operators speak of."""
    folder, settings = version
    loaded = _load_pyfunc(str(folder), settings)
    asked = pd.DataFrame({"prompt": ["Who?"], "response": ["me"]})
    assert len(loaded.predict(asked)) == 10
    with (folder / "scores.parquet").open("ab") as file:
        file.write(b" ")
    with pytest.raises(RunError, match=r"scores.parquet"):
        loaded.predict(asked)
