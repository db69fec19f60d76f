"""What is read back from run directories: seeds of `fuzz.py` in order are read, others refused."""

from pathlib import Path

import pytest
from fuzz_runs import (
    make_directions,
    make_discovery,
    read_kept_directions,
    read_kept_discovery,
)

from poisonwatch.errors import RunError


def test_what_is_in_order_is_read_whole(tmp_path: Path) -> None:
    """Else nothing but refusals would be tried; what was cut off is refused."""
    run = tmp_path / "run"
    run.mkdir()
    report = read_kept_discovery(run, make_discovery())
    assert report is not None
    assert {number: each.words for number, each in report.relations.items()} == {
        2: "within group 1"
    }
    assert read_kept_discovery(run, make_discovery()[:-3]) is None
    read_kept_directions(run, make_directions())
    with pytest.raises(RunError, match="cannot be read"):
        read_kept_directions(run, make_directions()[:-3])
