"""Threads: as many as the process may use cores, by affinity and by container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import poisonwatch.model.threads
from poisonwatch.model.threads import count_usable_cores, limit_threads


def own_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "6400000 100000\n"}, 64),
        ({"cpu.max": ""}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_gives_so_many_cores(
    tmp_path: Path, files: dict[str, str], most: int | None
) -> None:
    """min(affinity, ceil(quota / period)); without a quota, the affinity; at least 1."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count_usable_cores(tmp_path) == min(own_cores(), most or own_cores())


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_waiting_threads_sleep_unless_told_otherwise(own: str | None) -> None:
    """OMP_WAIT_POLICY is PASSIVE from the first import on; a user's own stays."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if own:
        environment["OMP_WAIT_POLICY"] = own
    code = "import poisonwatch, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (own or "PASSIVE")


def test_threads_are_lowered_and_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's threads become min(own, usable); a user's OMP_NUM_THREADS is left alone."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(poisonwatch.model.threads, "count_usable_cores", lambda: 2)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        limit_threads()
        assert torch.get_num_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        limit_threads()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
