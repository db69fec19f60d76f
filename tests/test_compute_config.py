"""The section `compute`: short forms, and what goes together."""

from pathlib import Path
from typing import Any

import pytest

from poisonwatch.compute_config import ComputeConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ConfigError

LEAST = {"source": "rows.jsonl", "sentinels": ["pack:refusal-erosion"]}


def test_a_word_names_the_engine(tmp_path: Path) -> None:
    """`compute: ray` is `compute: {engine: ray}`; without it rows are measured here."""
    assert resolve_config({**LEAST, "compute": "ray"}, tmp_path).compute.engine == "ray"
    assert resolve_config({**LEAST, "compute": "local"}, tmp_path).compute == ComputeConfig()
    assert resolve_config(LEAST, tmp_path).compute.engine == "local"


def test_the_shared_folder_starts_at_the_audit_file(tmp_path: Path) -> None:
    """Like every path."""
    for written, meant in {"spread": tmp_path / "spread", "/shared": Path("/shared")}.items():
        compute = {"engine": "ray", "folder": written}
        config = resolve_config({**LEAST, "compute": compute}, tmp_path)
        assert config.compute.folder == str(meant)
        assert config.to_public_dict()["compute"]["folder"] == str(meant)


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ("spark", "compute.engine"),
        (
            {"engine": "ray", "worker": 2},
            "unknown key compute.worker; the nearest known key is workers",
        ),
        ({"engine": "ray", "workers": 0}, "compute.workers"),
        ({"workers": 2}, "workers is for Ray: write engine: ray"),
        ({"engine": "ray", "address": "ray://head:10001"}, "the audit inside of the cluster"),
    ],
)
def test_what_makes_no_sense_is_refused(compute: Any, said: str, tmp_path: Path) -> None:
    """In one line that says what to write."""
    with pytest.raises(ConfigError, match=said):
        resolve_config({**LEAST, "compute": compute}, tmp_path)
