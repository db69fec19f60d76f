"""The rows of an audit as data sets."""

import json

import pandas as pd
from tracking import runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.datasets import _build_dataset
from poisonwatch.ledger.ledger import Ledger


def test_new_and_trusted_rows_are_the_run_s_data_sets(tracked: tuple[AuditConfig, Ledger]) -> None:
    """By role, digest and place; where nothing was new, nothing was compared."""
    config, _ = tracked
    first, second = runs_of(config)
    data = {d.tags[0].value: d.dataset for d in first.inputs.dataset_inputs}
    assert data["audit"].name == "tiny"
    assert data["audit"].digest == first.data.tags["poisonwatch.data"][:36]
    assert data["reference"].name == "tiny trusted"
    assert json.loads(data["reference"].source)["uri"].endswith("trusted.jsonl")
    assert json.loads(data["reference"].profile)["num_rows"] == 40
    assert [d.tags[0].value for d in second.inputs.dataset_inputs] == ["audit"]


def test_a_data_set_says_how_many_rows_it_has_though_mlflow_sees_some() -> None:
    """The profile counts n rows; columns and types are those of the rows that were given."""
    rows = pd.DataFrame({"example_id": ["a", "b"], "position": [0, 1]})
    found = _build_dataset(rows, 7, name="big", digest="d" * 64, source=None, context="audit")
    assert json.loads(found.dataset.profile) == {"num_rows": 7, "num_elements": 14}
    assert [column["name"] for column in json.loads(found.dataset.schema)["mlflow_colspec"]] == [
        "example_id",
        "position",
    ]
    assert found.dataset.digest == "d" * 36
