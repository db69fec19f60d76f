"""Hostile files of every kind, each read by a process of its own."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from attack_site import ROOT, Line

MAX_MIB = 1000
REFUSED = 2


def read_hostile_files(folder: Path) -> list[dict[str, Any]]:
    """What reading each kind took and said. Kept to a process of its own, whose children begin
    small.
    """
    command = [sys.executable, str(ROOT / "benchmarks" / "hostile_files.py"), "--json"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_orderly(reading: dict[str, Any]) -> bool:
    """Read, or refused by one line; within bounds."""
    refused = reading["code"] == REFUSED and len(reading["lines"]) == 1
    return (reading["code"] == 0 or refused) and reading["mib"] < MAX_MIB


def name_group(kind: str) -> str:
    """The group that a kind belongs to: its format, where its name begins with one."""
    first = kind.replace(":", " ").split()[0]
    if first in ("json", "jsonl", "csv", "parquet", "arrow", "audit.yaml", "sentinels.yaml"):
        return first
    if first in ("gzip", "gz", "bz2", "xz", "zst", "zstd", "zip"):
        return "packed"
    return "pipes, devices, links, names"


def summarise_files(found: list[dict[str, Any]]) -> list[Line]:
    """A line a group: the largest peak, the longest time, and what was out of order."""
    groups = defaultdict(list)
    for reading in found:
        groups[name_group(reading["kind"])].append(reading)
    lines = []
    for group, readings in groups.items():
        faults = [f"{r['kind']} ({r['code']})" for r in readings if not is_orderly(r)]
        refused = sum(reading["code"] == REFUSED for reading in readings)
        peak = max(reading["mib"] for reading in readings)
        slowest = max(reading["seconds"] for reading in readings)
        shown = f"{refused} refused, peak {peak} MiB, longest {slowest:.0f} s of processor"
        if faults:
            shown += f"; not so: {', '.join(faults)}"
        asked = "read, or one line; under 1 GB"
        lines.append(Line(f"hostile files: {group}", len(readings), asked, shown, not faults))
    return lines
