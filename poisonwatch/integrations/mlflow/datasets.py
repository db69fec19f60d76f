"""The rows of an audit as the data sets of its MLflow run."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset, from_pandas
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from pydantic import ValidationError
from safetensors import safe_open

from poisonwatch.ledger.history import PastAudit
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.pairs import read_places
from poisonwatch.run_directory.provenance import hash_data
from poisonwatch.source_config import SourceConfig

LONGEST_DIGEST = 36  # characters that MLflow keeps of a data set's digest
ROWS_LOGGED = 10_000  # that MLflow reads columns and their types from; the files have all


def build_datasets(past: PastAudit, settings: Mapping[str, Any]) -> Iterator[DatasetInput]:
    """The new rows, and the trusted ones that they were compared with, by id and place; what the
    run directory lacks is left out.
    """
    scores, operators = past.run_dir / "scores.parquet", past.run_dir / OPERATORS_FILE
    if scores.exists():
        places = read_places(scores)
        yield _build_dataset(
            places.slice(0, ROWS_LOGGED).to_pandas(),
            len(places),
            name=past.name,
            digest=past.summary["data_fingerprint"],
            source=settings.get("source"),
            context="audit",
        )
    counts = past.summary["counts"]
    if operators.exists() and counts["reference"]:
        trusted = _read_ids(operators)[counts["new"] :]
        yield _build_dataset(
            pd.DataFrame({"example_id": trusted[:ROWS_LOGGED]}),
            len(trusted),
            name=f"{past.name} trusted",
            digest=hash_data(trusted),
            source=settings.get("reference"),
            context="reference",
        )


def _read_ids(operators: Path) -> list[str]:
    """The ids of the rows that operators were fitted to: the new ones, then the trusted ones."""
    with safe_open(operators, "np") as file:
        return [bytes(row).hex() for row in file.get_tensor("ids")]


def _build_dataset(
    rows: pd.DataFrame,
    n: int,
    name: str,
    digest: str,
    source: Mapping[str, Any] | None,
    context: str,
) -> DatasetInput:
    """A data set of n rows, of which MLflow sees some."""
    with warnings.catch_warnings():
        # MLflow warns that a local path is no registered source, and of integers without missing
        # values.
        warnings.simplefilter("ignore")
        dataset = _make_pandas_dataset(rows, name, digest[:LONGEST_DIGEST], source)
        found = dataset._to_mlflow_entity()
    profile = json.dumps({"num_rows": n, "num_elements": n * len(rows.columns)})
    whole = Dataset(
        found.name, found.digest, found.source_type, found.source, found.schema, profile
    )
    return DatasetInput(whole, tags=[InputTag("mlflow.data.context", context)])


def _make_pandas_dataset(
    rows: pd.DataFrame, name: str, digest: str, source: Mapping[str, Any] | None
) -> PandasDataset:
    """With its source where MLflow can name it."""
    # MLflow knows no databases, nor the hub's URLs; rows that a person trusts are in no file.
    try:
        address = SourceConfig.model_validate(source).address
        return from_pandas(rows, source=address, name=name, digest=digest)
    except (MlflowException, ValidationError):
        return from_pandas(rows, name=name, digest=digest)
