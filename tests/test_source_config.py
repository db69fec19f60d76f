"""Where rows are and how they are read: what goes together, and what is another reading."""

from typing import Any

import pytest

from poisonwatch.source_config import SourceConfig


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"ignore": ["id"]}, True),
        ({"max_unpacked_gb": 1.0}, True),
        ({"format": "alpaca"}, False),
        ({"fields": {"prompt": "question"}}, False),
        ({"roles": {"bing": "assistant"}}, False),
        ({"train_on": "last"}, False),
    ],
)
def test_only_what_changes_how_rows_are_read_makes_them_others(
    settings: dict[str, Any], same: bool
) -> None:
    """reading(s) = reading({}) for settings that say where rows are, or what is told of them."""
    changed = SourceConfig(path="a.jsonl", **settings).reading
    assert (changed == SourceConfig(path="a.jsonl").reading) == same
