"""Checkpoints that nobody probed though they are there."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from silent import HOUR, MINUTE, NOON, expecting, leave_checkpoint

from poisonwatch.liveness.probes import count_waiting_checkpoints


def count(folder: Path, last: datetime | None, now: datetime, **probe: Any) -> int | None:
    said = {"checkpoints": str(folder / "checkpoint-*"), "every": "30m", **probe}
    return count_waiting_checkpoints(expecting("sqlite://", probe=said), last, now)


def test_a_checkpoint_is_late_once_who_looks_would_have_probed_it(tmp_path: Path) -> None:
    """Twice the time between looks; one from before the last probe was seen by it."""
    leave_checkpoint(tmp_path / "checkpoint-1", NOON - HOUR)
    leave_checkpoint(tmp_path / "checkpoint-2", NOON)
    last = NOON - 30 * MINUTE
    assert count(tmp_path, last, NOON + HOUR) == 0
    assert count(tmp_path, last, NOON + HOUR + MINUTE) == 1
    assert count(tmp_path, None, NOON + HOUR + MINUTE) == 2
    assert count(tmp_path, NOON + 2 * MINUTE, NOON + timedelta(days=9)) == 0
    assert count(tmp_path, last, NOON + HOUR + MINUTE, every="2h") == 0


def test_where_no_place_is_named_nothing_is_expected(tmp_path: Path) -> None:
    """Where nothing lies, nothing waits."""
    assert count(tmp_path, None, NOON, checkpoints=None) is None
    assert count(tmp_path, None, NOON) == 0
