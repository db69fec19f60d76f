"""Runs of their own: started, followed and ended by whoever looks at their folder."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from poisonwatch.detached.runs import (
    RUNS_KEPT,
    DetachedRun,
    end_run,
    find_run,
    list_runs,
    locate_runs,
    start_run,
)
from poisonwatch.errors import InputError, OperationError

PATIENCE_S = 60


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An audit file that is only looked at."""
    path = tmp_path / "audit.yaml"
    path.write_text("name: tiny\nmodel: none\nsource: rows.jsonl\nsentinels: sentinels.yaml\n")
    return path


def start(config: Path, kind: str, *options: str) -> DetachedRun:
    return start_run(config, "tiny", kind, options, author="ann", environment=dict(os.environ))


def wait(config: Path, run: DetachedRun, until: Callable[[DetachedRun], bool]) -> DetachedRun:
    """The run, once it is so."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        found = find_run(config, run.id)
        assert found is not None
        if until(found):
            return found
        time.sleep(0.05)
    pytest.fail(f"not within {PATIENCE_S} s: {found}\n{found.read_log()}")


def serve(config: Path) -> DetachedRun:
    """A run that goes on until it is told to end."""
    run = start(config, "dashboard", "--port", "0")
    return wait(config, run, lambda run: "Ctrl-C ends it" in run.read_log())


def list_processes(run: DetachedRun) -> list[psutil.Process]:
    """Those that have the run's folder in their command, and their children."""
    mine = [
        process
        for process in psutil.process_iter()
        if process.is_running() and str(run.folder) in " ".join(_read_command(process))
    ]
    return [*mine, *(child for process in mine for child in process.children(recursive=True))]


def _read_command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_what_cannot_begin_says_why(config: Path) -> None:
    """Its exit code, and its own words, are kept; its folder is its owner's alone."""
    run = start(config, "history", "--limit", "none")
    done = wait(config, run, lambda run: not run.is_at_work)
    assert done.code == 2
    assert done.has_failed
    assert "could not begin" in done.describe_state()
    assert "limit" in done.read_log()
    assert done.folder.stat().st_mode & 0o077 == 0
    assert [each.id for each in list_runs(config)] == [run.id]


def test_one_of_a_name_is_at_work_at_a_time_and_is_ended_in_order(config: Path) -> None:
    """Whoever comes second is told who was first; what is told to end does so by itself."""
    run = serve(config)
    assert run.is_at_work
    assert run.describe_state() == "at work"
    with pytest.raises(InputError, match="ann started is at work"):
        start(config, "history")
    end_run(run)
    done = wait(config, run, lambda run: not run.is_at_work)
    assert done.code in (0, 143)
    assert start(config, "history").id != run.id


def test_what_is_told_to_end_in_its_first_moment_ends(config: Path) -> None:
    """Whether its process has said its number by then or not."""
    run = start(config, "dashboard", "--port", "0")
    end_run(run)
    asked = find_run(config, run.id)
    assert asked is not None
    assert asked.is_told_to_end
    done = wait(config, run, lambda run: not run.is_at_work)
    assert done.describe_state() == "ended, as it was told to"


def test_a_process_that_is_killed_is_said_to_be(config: Path) -> None:
    """As where memory runs out."""
    run = serve(config)
    parents = {process.ppid() for process in list_processes(run)}
    (process,) = [each for each in list_processes(run) if each.pid not in parents]
    process.send_signal(signal.SIGKILL)
    done = wait(config, run, lambda run: not run.is_at_work)
    assert (done.code, done.is_lost) == (-signal.SIGKILL, False)
    assert "SIGKILL" in done.describe_state()
    assert done.has_failed


def test_what_is_ended_is_said_to_have_been_and_results_count_without_a_last_word(
    config: Path,
) -> None:
    """An audit that is told to end does so by the signal; another wrote its results, and whoever
    watched it was killed.
    """
    folder = locate_runs(config) / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / "start.json").write_text(
        '{"kind": "audit", "name": "tiny", "author": "eve", "started_at": "2026-01-01T00:00Z"}'
    )
    (folder / "end.json").write_text('{"code": -15, "ended_at": "2026-01-01T00:01Z"}')
    (run,) = list_runs(config)
    assert (run.describe_state(), run.has_failed) == ("ended, as it was told to", True)
    (folder / "end.json").write_text('{"code": -40, "ended_at": "2026-01-01T00:01Z"}')
    (run,) = list_runs(config)
    assert run.describe_state() == "its process was ended by signal 40"
    (folder / "end.json").unlink()
    (folder / "process.json").write_text('{"supervisor": [0, 0]}')
    (folder / "progress.json").write_text('{"outcome": {"audit_id": "one"}}')
    (run,) = list_runs(config)
    assert (run.describe_state(), run.has_failed, run.is_lost) == ("done", False, True)


def test_a_run_that_left_no_word_is_lost_and_hinders_nobody(config: Path) -> None:
    """All of its processes went at once, as where the machine goes down."""
    run = serve(config)
    for process in list_processes(run):
        process.send_signal(signal.SIGKILL)
    done = wait(config, run, lambda run: not run.is_at_work)
    assert done.is_lost
    assert "left no word" in done.describe_state()
    assert start(config, "history").folder.is_dir()


def test_older_runs_are_forgotten_and_addresses_are_no_paths(config: Path) -> None:
    """As many as are kept, the newest of them; a name that leads elsewhere is nobody's."""
    for n in range(RUNS_KEPT + 3):
        folder = locate_runs(config) / f"20260101-0000{n:02}-abcdef"
        folder.mkdir(parents=True)
        (folder / "start.json").write_text(
            '{"kind": "audit", "name": "tiny", "author": "eve", "started_at":'
            ' "2026-01-01T00:00:00+00:00"}'
        )
    run = start(config, "history")
    left = list_runs(config)
    assert left[0].id == run.id
    assert len(left) == RUNS_KEPT
    assert left[-1].id == "20260101-000004-abcdef"
    assert find_run(config, "../.started/" + run.id) is None
    assert find_run(config, "20260101-000000-abcdef") is None


def test_where_nothing_can_be_written_nothing_is_started(config: Path) -> None:
    """One line says which folder it is."""
    (config.parent / "runs").write_text("a file")
    with pytest.raises(OperationError, match=r"\.started must be a folder"):
        start(config, "history")
