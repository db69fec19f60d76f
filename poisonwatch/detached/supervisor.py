"""The process beside a detached run: starts it, writes down its output, and how it ended.

`python -m poisonwatch.detached.supervisor FOLDER ARGUMENTS...` runs `poisonwatch ARGUMENTS...` and
returns at once. What goes on is of a session of its own: it needs neither the terminal nor the
process of whoever started it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from poisonwatch.atomic import replace_file
from poisonwatch.detached.progress_file import PROGRESS_VARIABLE

LOG_FILE, PROGRESS_FILE = "output.log", "progress.json"
PROCESS_FILE, END_FILE = "process.json", "end.json"
ASKED_FILE = "end-asked"  # there once the run was told to end
GRACE_S = 60.0  # in which a run that is told to end does so in order


def supervise(folder: Path, arguments: list[str]) -> None:
    """Run a command to its end, with what it says in `folder`."""
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "poisonwatch.flows.cli", *arguments],
            env={**os.environ, PROGRESS_VARIABLE: str(folder / PROGRESS_FILE)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def end(_number: int, _frame: FrameType | None) -> None:
        _end(process)

    signal.signal(signal.SIGTERM, end)
    pids = {"supervisor": os.getpid(), "process": process.pid}
    told = {name: [pid, psutil.Process(pid).create_time()] for name, pid in pids.items()}
    _write(folder / PROCESS_FILE, told)
    # Whoever told it to end before that knew no process to tell.
    if (folder / ASKED_FILE).exists():
        _end(process)
    code = process.wait()
    _write(folder / END_FILE, {"code": code, "ended_at": datetime.now(UTC).isoformat()})


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    later = threading.Timer(GRACE_S, process.kill)
    later.daemon = True
    later.start()


def _write(path: Path, said: Mapping[str, Any]) -> None:
    with replace_file(path) as part:
        part.write_text(json.dumps(said), encoding="ascii")


def main() -> None:
    """Go on in a process that nobody waits for."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    if os.fork():
        os._exit(0)
    os.setsid()
    supervise(folder, arguments)


if __name__ == "__main__":
    main()
