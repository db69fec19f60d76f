"""The rows of an audit as data sets."""

import json

from tracking import runs_of

from poisonwatch.config import AuditConfig
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
