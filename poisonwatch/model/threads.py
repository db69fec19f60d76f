"""How many threads torch computes with: never more than the cores that this process may use.

torch counts the machine's cores. In a container that may use two of sixty-four, its threads would
spend their time waiting for each other.
"""

import math
import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def limit_threads() -> None:
    """Let torch use no more threads than `count_usable_cores`; OMP_NUM_THREADS stays what it is
    where it is set.
    """
    usable = count_usable_cores()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable:
        torch.set_num_threads(usable)


def count_usable_cores(cgroup: Path = CGROUP) -> int:
    """The cores that this process may use: by its affinity, and by the quota of its container."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    quota = _read_quota(cgroup)
    if quota is not None:
        cores = min(cores, math.ceil(quota))
    return max(1, cores)


def _read_quota(cgroup: Path) -> float | None:
    """Cores that a container may use, a fraction; None where there is no limit, or none is told."""
    try:
        # Version 2 has one file, version 1 two.
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None
    return cores if cores > 0 else None
