"""The process beside a run: it is nobody's child, and writes down how the run ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from poisonwatch.detached.supervisor import (
    ASKED_FILE,
    END_FILE,
    LOG_FILE,
    PROCESS_FILE,
)

PATIENCE_S = 60


def supervise(folder: Path, *arguments: str) -> int:
    """How a run of these arguments ended, under a supervisor."""
    command = [sys.executable, "-m", "poisonwatch.detached.supervisor", str(folder), *arguments]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    ends = time.monotonic() + PATIENCE_S
    while not (folder / END_FILE).exists():
        if time.monotonic() > ends:
            pytest.fail(f"not within {PATIENCE_S} s")
        time.sleep(0.05)
    return int(json.loads((folder / END_FILE).read_text())["code"])


def test_whoever_starts_it_waits_for_nothing_and_finds_how_it_ended(tmp_path: Path) -> None:
    """Its exit code and output, in a session of its own."""
    assert supervise(tmp_path, "--version") == 0
    assert (tmp_path / LOG_FILE).read_text()[:1].isdigit()
    pids = {pid for pid, _ in json.loads((tmp_path / PROCESS_FILE).read_text()).values()}
    assert os.getpid() not in pids
    assert pids.isdisjoint(child.pid for child in psutil.Process().children(recursive=True))


def test_a_run_that_was_told_to_end_before_its_process_began_ends(tmp_path: Path) -> None:
    """Whoever told it found no process: what was asked lies in its folder."""
    (tmp_path / ASKED_FILE).touch()
    config = tmp_path / "audit.yaml"
    config.write_text("name: tiny\nmodel: none\nsource: rows.jsonl\nsentinels: s.yaml\n")
    assert supervise(tmp_path, "dashboard", str(config), "--port", "0") == -signal.SIGTERM
