"""How much memory is free: of a GPU, or of the machine as far as its container may use it."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

# Where Linux says what a container may use, and in which group this process is.
CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

# Files of a group by version of the interface: its limit, and what it uses.
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)

# What a group's use holds of files read, by version: the kernel gives these up for programs.
READ_FILES = ("inactive_file", "active_file", "total_inactive_file", "total_active_file")


def measure_free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or in main memory for any other device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch has taken from the driver and holds in store is free to it.
        stored = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + stored
    return measure_free_main_memory()


def measure_free_main_memory() -> int:
    """Bytes that are free in main memory, within the limit of this process's container."""
    free = int(psutil.virtual_memory().available)
    room = measure_cgroup_room()
    if room is None:
        return free
    return min(free, room)


def return_main_memory() -> None:
    """Give back to the system what was freed: after a pass over batches of many sizes, the C
    library keeps two and three times of what is in use.
    """
    library = ctypes.CDLL(None)
    # Others than the GNU C library do it by themselves, or have no such call.
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def measure_cgroup_room(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes up to the nearest limit of this process's control groups; None where there is none."""
    rooms = []
    for folder in _list_groups(root, membership):
        room = _measure_room(folder)
        if room is not None:
            rooms.append(room)
    return min(rooms, default=None)


def _list_groups(root: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's memory groups and of all above them; that of a container looks
    like the root from within.
    """
    yield root
    yield root / "memory"
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = root
        if "memory" in controllers.split(","):
            top = root / "memory"
        elif controllers:
            continue
        folder = top / path.lstrip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent


def _measure_room(folder: Path) -> int | None:
    """Bytes between what a group uses, files read left out, and its limit; None where it has no
    limit.
    """
    for limit_name, use_name in LIMITS:
        try:
            limit, used = (folder / limit_name).read_text(), (folder / use_name).read_text()
            statistics = (folder / "memory.stat").read_text()
        except OSError:
            continue
        if limit.strip() == "max":
            return None
        entries = dict(line.split() for line in statistics.splitlines())
        names = READ_FILES[:2]
        if use_name == "memory.usage_in_bytes":
            names = READ_FILES[2:]
        given_up = sum(int(entries.get(name, 0)) for name in names)
        return max(0, int(limit) - max(0, int(used) - given_up))
    return None
