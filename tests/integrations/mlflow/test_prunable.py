"""Of which runs and folders a store tells what may go."""

from pathlib import Path
from typing import Any

import pytest

from poisonwatch.integrations.mlflow.prunable import _find_folder, is_good


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("file:///a%20b/c", Path("/a b/c")),
        ("/a/b", Path("/a/b")),
        ("s3://bucket/run", None),
        ("mlflow-artifacts:/1/2", None),
        ("file://elsewhere/a", None),
    ],
)
def test_only_folders_of_this_machine_are_counted_here(place: str, folder: Path | None) -> None:
    assert _find_folder(place) == folder


GOOD = {
    "settings": {"K": 1},
    "sentinel_problems": [],
    "panels": [{"unflagged": 40, "p_below_0.05": 0.1}],
}


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"settings": None}, False),
        ({"sentinel_problems": ["a"]}, False),
        ({"panels": [{"unflagged": 40, "p_below_0.05": 0.2}]}, False),
        ({"panels": [{"unflagged": 39, "p_below_0.05": 0.2}]}, True),
        ({"panels": [{"p_below_0.05": 0.2}]}, True),
        ({"panels": [{"unflagged": 40}]}, False),
    ],
)
def test_operators_are_good_where_the_summary_says_so(changes: dict[str, Any], good: bool) -> None:
    assert is_good({**GOOD, **changes}) == good


@pytest.mark.parametrize("missing", ["settings", "sentinel_problems"])
def test_a_summary_that_says_too_little_is_of_no_good_operators(missing: str) -> None:
    """And no error: pruning looks at audits of every version."""
    assert not is_good({name: value for name, value in GOOD.items() if name != missing})
