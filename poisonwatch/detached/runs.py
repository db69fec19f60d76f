"""Audits and drills that were started from the dashboard: each has a folder in `runs/.started`,
beside the audit file.

    start.json       what was started, when, by whom
    process.json     its processes, by number and the time they began
    output.log       what it said
    progress.json    how far it is, and what came of it
    end-asked        is there once somebody told it to end
    end.json         its exit code

All that is known of a run is in its folder: the dashboard may end, and start again.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from poisonwatch.atomic import remove, replace_file
from poisonwatch.detached.progress_file import WorkProgress, read_progress
from poisonwatch.detached.supervisor import (
    ASKED_FILE,
    END_FILE,
    LOG_FILE,
    PROCESS_FILE,
    PROGRESS_FILE,
)
from poisonwatch.errors import InputError, OperationError
from poisonwatch.permissions import make_private_file, make_private_folder
from poisonwatch.run_directory.layout import RUNS_FOLDER, make_audit_id

STARTED_FOLDER = ".started"  # below the folder of runs
START_FILE = "start.json"
RUNS_KEPT = 20
STARTING_S = 60.0  # within which a process says that it is there
LOG_BYTES = 16_384  # of the end of what a run said
SAME_MOMENT_S = 2.0  # two readings of when a process began may differ by so much
# An audit hears SIGTERM, leaves all in order, and then ends by it.
ENDED_AS_ASKED = (143, -signal.SIGTERM)
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedRun:
    """An audit or a drill (`kind`) of an audit's `name`. `code` is the exit code, None while it is
    at work, or where its processes are gone without a word (`is_lost`);
    `is_told_to_end` once somebody asked for its end, come or not.
    """

    id: str
    folder: Path
    kind: str
    name: str
    author: str
    started_at: str
    is_at_work: bool
    is_told_to_end: bool
    code: int | None
    ended_at: str | None
    progress: WorkProgress | None

    @property
    def is_lost(self) -> bool:
        """Whether its processes are gone, and nobody noted how they ended."""
        return not self.is_at_work and self.code is None

    @property
    def outcome(self) -> Mapping[str, Any] | None:
        """What came of it; None where it came to nothing, or not yet."""
        told = self.progress.outcome if self.progress else None
        return told if told is not None and _is_outcome(told, self.kind) else None

    @property
    def has_failed(self) -> bool:
        """Whether it ended without results."""
        if self.is_lost:
            return self.outcome is None
        return not self.is_at_work and self.code not in (0, 3)

    def describe_state(self) -> str:
        """How it is, or ended, in a few words."""
        if self.is_at_work:
            return "at work, and told to end" if self.is_told_to_end else "at work"
        if self.code is None and self.outcome is not None:
            return "done"
        if self.code is None:
            return "its process is gone, and left no word: the machine may have gone down"
        if self.code in ENDED_AS_ASKED:
            return "ended, as it was told to"
        if self.code < 0:
            # Most of those of real time have no names.
            known = {each.value: each.name for each in signal.Signals}
            name = known.get(-self.code, f"signal {-self.code}")
            hint = ": memory may have run out" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        if self.code == 2:
            return "could not begin: what it was given cannot be used"
        return "done" if not self.has_failed else f"failed, with exit code {self.code}"

    def read_log(self) -> str:
        """The end of what it said, as it stands in the file: not fit to be shown as it is."""
        with suppress(OSError), (self.folder / LOG_FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            said = file.read().decode("utf-8", errors="replace")
            return said if size <= LOG_BYTES else said.partition("\n")[2]
        return ""


def _is_outcome(told: Mapping[str, Any], kind: str) -> bool:
    """Whether it says what runs of this version do: another may have said otherwise."""
    if kind != "audit":
        return isinstance(told.get("sentences"), list) and "run_dir" in told
    if not told.get("run_dir"):
        return True
    counts = told.get("counts")
    if not isinstance(counts, dict) or "audit_id" not in told:
        return False
    return all(isinstance(counts.get(name), int) for name in ("flagged", "new"))


def locate_runs(config: Path) -> Path:
    """Where the runs of an audit file are, that were started from the dashboard."""
    return config.resolve().parent / RUNS_FOLDER / STARTED_FOLDER


def list_runs(config: Path) -> list[DetachedRun]:
    """The runs of an audit file that are remembered, newest first."""
    folder = locate_runs(config)
    if not folder.is_dir():
        return []
    ids = sorted((path.name for path in folder.iterdir() if _ID.fullmatch(path.name)), reverse=True)
    found = [_read_run(folder / id) for id in ids]
    return [run for run in found if run is not None]


def find_run(config: Path, id: str) -> DetachedRun | None:
    """The run of an id; None where there is none."""
    # Looked at before it is joined to a folder: it may come from an address.
    return _read_run(locate_runs(config) / id) if _ID.fullmatch(id) else None


def start_run(
    config: Path,
    name: str,
    kind: str,
    options: Sequence[str],
    *,
    author: str,
    environment: Mapping[str, str],
) -> DetachedRun:
    """Start `poisonwatch KIND CONFIG OPTIONS...` for an audit's name, in a process of its own.

    Raises InputError where one of the name is at work, OperationError where none can be started.
    """
    started = locate_runs(config)
    try:
        make_private_folder(started)
        with FileLock(started / "start.lock"):
            _require_none_at_work(config, name)
            _forget_oldest(config)
            folder = started / make_audit_id()
            make_private_folder(folder)
            make_private_file(folder / LOG_FILE)
            said = {"kind": kind, "name": name, "author": author}
            _write(folder / START_FILE, {**said, "started_at": datetime.now(UTC).isoformat()})
            _launch(folder, [kind, str(config.resolve()), *options], environment)
    except OSError as error:
        raise OperationError(
            f"nothing can be started from here ({error.strerror or type(error).__name__}): "
            f"{started} must be a folder that can be written"
        ) from error
    run = _read_run(folder)
    assert run is not None
    return run


def end_run(run: DetachedRun) -> None:
    """Tell a run to end: an interrupted audit goes on from its checkpoints when it is started
    again. One that has just been started, and has no process yet, ends as soon as it has.
    """
    if not run.is_at_work:
        return
    # Before its processes are looked for: one that comes meanwhile finds it. Where no file can be
    # made, those that are there are told all the same.
    with suppress(OSError):
        make_private_file(run.folder / ASKED_FILE)
    processes = _read_json(run.folder / PROCESS_FILE) or {}
    for kind in ("supervisor", "process"):
        process = _find_process(processes.get(kind))
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
            return


def _require_none_at_work(config: Path, name: str) -> None:
    for run in list_runs(config):
        if run.is_at_work and run.name == name:
            raise InputError(
                f"{'an audit' if run.kind == 'audit' else 'a drill'} that {run.author} started is "
                "at work: wait for its end, or end it"
            )


def _forget_oldest(config: Path) -> None:
    for run in list_runs(config)[RUNS_KEPT - 1 :]:
        if not run.is_at_work:
            remove(run.folder)


def _launch(folder: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
    with (folder / LOG_FILE).open("ab") as log:
        # it goes on in a process that is nobody's child, and this one ends at once
        done = subprocess.run(
            [sys.executable, "-m", "poisonwatch.detached.supervisor", str(folder), *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=STARTING_S,
            check=False,
        )
    if done.returncode:
        raise OperationError(
            f"no process could be started (exit code {done.returncode}): "
            f"{folder / LOG_FILE} says why"
        )


def _read_run(folder: Path) -> DetachedRun | None:
    start = _read_json(folder / START_FILE)
    if start is None:
        return None
    try:
        kind, name, author, at = (
            str(start[key]) for key in ("kind", "name", "author", "started_at")
        )
        started_at = datetime.fromisoformat(at)
    except (KeyError, ValueError):
        return None
    if started_at.tzinfo is None:
        return None
    is_at_work = _is_at_work(folder, started_at)
    # read after its processes were looked for: one that ended meanwhile has said how
    end = _read_json(folder / END_FILE) or {}
    code = end.get("code")
    return DetachedRun(
        id=folder.name,
        folder=folder,
        kind=kind,
        name=name,
        author=author,
        started_at=at,
        is_at_work=is_at_work and code is None,
        is_told_to_end=(folder / ASKED_FILE).exists(),
        code=code if isinstance(code, int) else None,
        ended_at=str(end["ended_at"]) if "ended_at" in end else None,
        progress=read_progress(folder / PROGRESS_FILE),
    )


def _is_at_work(folder: Path, started_at: datetime) -> bool:
    processes = _read_json(folder / PROCESS_FILE)
    if processes is None:
        # it has just been started, and comes to say so
        return datetime.now(UTC) - started_at < timedelta(seconds=STARTING_S)
    return any(_find_process(each) is not None for each in processes.values())


def _find_process(told: Any) -> psutil.Process | None:
    """The process of a number and the moment at which it began; None where it has ended: numbers
    are given to others in time.
    """
    try:
        pid, began = told
        process = psutil.Process(int(pid))
        is_same = abs(process.create_time() - float(began)) < SAME_MOMENT_S
        ended = process.status() == psutil.STATUS_ZOMBIE
    except (psutil.Error, TypeError, ValueError):
        return None
    return process if is_same and not ended else None


def _read_json(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        return said if isinstance(said, dict) else None
    return None


def _write(path: Path, said: Mapping[str, Any]) -> None:
    with replace_file(path) as part:
        part.write_text(json.dumps(said), encoding="ascii")
