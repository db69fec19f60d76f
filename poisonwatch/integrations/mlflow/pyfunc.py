"""What `mlflow.pyfunc.load_model` gives for a registered model: the rows behind any answer.

A version holds `operators.safetensors`, `config.yaml`, `scores.parquet` and `SHA256SUMS` of the run
directory: files that are not what the audit wrote are refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from poisonwatch.config import ModelConfig
from poisonwatch.model.files import name_model
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.layout import EXPLAINING_FILES
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.stride.explain import ExplainedRow, explain_response
from poisonwatch.text.safe_yaml import parse_yaml


class RowsBehindAnswers:
    """The operators of an audit on its language model."""

    def __init__(self, folder: Path, model: str, top: int, seal: str | None = None) -> None:
        require_unchanged(folder, *EXPLAINING_FILES, seal=seal)
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        # `model` may name another copy of the audit's language model, as on this machine.
        settings = ModelConfig.model_validate(parse_yaml(text)["model"])
        saved = load_operators(folder)
        self.folder, self.stride, self.top, self.seal = folder, saved.stride, top, seal
        self.fitted = saved.load_on(load_pretrained(name_model(settings, model)))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """For each prompt and response, the rows that make the response likelier: `question` (its
        place in the input), then the fields of `ExplainedRow`.

        `source` and `position` are missing for trusted rows. A version has no rows to measure
        again: where gradients took too much room to be kept, no row is `exact`. Raises ModelError
        where a response is empty, RunError where the scores, which name rows, changed since.
        """
        require_unchanged(self.folder, "scores.parquet", seal=self.seal)
        found: list[dict[str, Any]] = []
        questions = zip(model_input["prompt"], model_input["response"], strict=True)
        for i, (prompt, response) in enumerate(questions):
            rows = explain_response(
                self.folder, self.fitted, prompt, response, stride=self.stride, top=self.top
            )
            found += [{"question": i, **asdict(row)} for row in rows]
        columns = ["question", *(field.name for field in fields(ExplainedRow))]
        # Int64 is pandas' integer that may be missing: trusted rows have no position.
        return pd.DataFrame(found, columns=columns).astype({"position": "Int64"})


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> RowsBehindAnswers:
    """Called by MLflow, under this name, with the downloaded files of a version. Raises ModelError
    where the audit's language model cannot be found, RunError where a file is not the audit's.
    """
    return RowsBehindAnswers(
        Path(path),
        str(model_config["model"]),
        int(model_config["top"]),
        # Versions of earlier releases, and of run directories without checksums, have none.
        model_config.get("seal"),
    )
