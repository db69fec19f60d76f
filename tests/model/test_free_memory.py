"""What is free, by the files that Linux has of a container's limits."""

from pathlib import Path

import psutil
import pytest
import torch

from poisonwatch.model.free_memory import (
    measure_cgroup_room,
    measure_free_memory,
    return_main_memory,
)


def write_group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


def second_version(limit: object, used: int, read: int) -> dict[str, object]:
    statistics = f"anon {used - read}\ninactive_file {read - 1}\nactive_file 1\nfile {read}"
    return {"memory.max": limit, "memory.current": used, "memory.stat": statistics}


def first_version(limit: int, used: int, read: int) -> dict[str, object]:
    statistics = f"inactive_file 7\ntotal_inactive_file {read}\ntotal_active_file 0"
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": used,
        "memory.stat": statistics,
    }


def test_the_nearest_limit_counts_without_files_read(tmp_path: Path) -> None:
    """limit - (used - read), the least of this group and those above; None without a limit, where
    there is nothing to read, and where the group is another controller's.
    """
    root, member = tmp_path / "cgroup", tmp_path / "self"
    assert measure_cgroup_room(root, member) is None
    write_group(root, second_version("max", 900, 100))
    member.write_text("0::/\n")
    assert measure_cgroup_room(root, member) is None
    member.write_text("0::/slice/pod\n")
    write_group(root / "slice", second_version(1000, 700, 300))
    write_group(root / "slice/pod", second_version(800, 500, 200))
    assert measure_cgroup_room(root, member) == 500
    write_group(root / "slice", second_version(600, 700, 300))
    assert measure_cgroup_room(root, member) == 200
    write_group(root / "slice", second_version(100, 700, 300))
    assert measure_cgroup_room(root, member) == 0


def test_a_container_of_the_first_version_is_read_too(tmp_path: Path) -> None:
    """Below `memory`, by this process's own group or, from within a container, the root."""
    root, member = tmp_path / "cgroup", tmp_path / "self"
    member.write_text("9:cpu,cpuacct:/docker/other\n8:memory:/docker/abc\n0::/none\n")
    write_group(root / "memory", first_version(2**63 - 4096, 900, 100))
    assert measure_cgroup_room(root, member) > 2**62
    write_group(root / "memory/docker/abc", first_version(1000, 400, 50))
    assert measure_cgroup_room(root, member) == 650
    write_group(root / "memory", first_version(500, 400, 50))
    assert measure_cgroup_room(root, member) == 150


def test_main_memory_is_what_the_system_says_at_most() -> None:
    """Of any device that is no GPU."""
    free = measure_free_memory(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total


def test_what_was_freed_is_given_back() -> None:
    """A hole between blocks in use, which the C library keeps for later: half of the blocks are
    freed, and the process holds less by most of them.
    """
    process = psutil.Process()
    return_main_memory()
    # Each below the size that is always given back at once.
    blocks = [torch.ones(30_000) for _ in range(1000)]
    held = process.memory_info().rss
    del blocks[::2]
    kept = process.memory_info().rss
    return_main_memory()
    assert held - process.memory_info().rss >= 0.8 * 500 * 120_000 > held - kept
    assert len(blocks) == pytest.approx(500)
