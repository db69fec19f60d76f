"""The process beside a run: it is nobody's child, and writes down how the run ended."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from poisonwatch.detached.supervisor import END_FILE, LOG_FILE, PROCESS_FILE

PATIENCE_S = 60


def test_whoever_starts_it_waits_for_nothing_and_finds_how_it_ended(tmp_path: Path) -> None:
    """Its exit code and output, in a session of its own."""
    command = [sys.executable, "-m", "poisonwatch.detached.supervisor", str(tmp_path), "--version"]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    ends = time.monotonic() + PATIENCE_S
    while not (tmp_path / END_FILE).exists() and time.monotonic() < ends:
        time.sleep(0.05)
    assert json.loads((tmp_path / END_FILE).read_text())["code"] == 0
    assert (tmp_path / LOG_FILE).read_text()[:1].isdigit()
    pids = {pid for pid, _ in json.loads((tmp_path / PROCESS_FILE).read_text()).values()}
    assert os.getpid() not in pids
    assert pids.isdisjoint(child.pid for child in psutil.Process().children(recursive=True))
