"""`pytest --forks`: what one process collects, several run, and it reads as if one had; the nursery
of what they start.
"""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from nursery import ADDRESS, Forked, Nursery
from paths import TESTS
from patience import PATIENCE_S

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
CONFTEST = """
from forks import Forks

def pytest_addoption(parser):
    parser.addoption("--forks", type=int)

def pytest_configure(config):
    if config.option.forks:
        config.pluginmanager.register(Forks(config, config.option.forks))
"""
WHO = """
import os, warnings
import pytest

@pytest.fixture(scope="module", autouse=True)
def note(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    (folder / f"begun-{__name__}").write_text(str(os.getpid()))
    yield
    (folder / f"ended-{__name__}").write_text(str(os.getpid()))
"""
TEST_THAT_WAITS = """
def test_waits(tmp_path_factory):
    (tmp_path_factory.getbasetemp().parent / "waits").touch()
    import time
    time.sleep(1800)
"""
EVERY_OUTCOME = """
import logging, sys
handler = logging.StreamHandler(sys.stderr)  # as packages do as they are imported

def test_fails_after_logging():
    handler.emit(logging.makeLogRecord({"msg": "said by a handler of the collection"}))
    assert False
def test_passes(): print("said by one that passes")
def test_fails():
    print("said by one that fails")
    os.system("echo said by its child")
    assert 1 == 2
def test_skips(): pytest.skip("no reason")
@pytest.mark.xfail
def test_is_known_to_fail(): assert False
def test_warns(): warnings.warn("this is a warning")
@pytest.fixture
def broken(): raise RuntimeError("broken")
def test_errs(broken): pass
"""


def write_files(folder: Path, *options: str, **files: str) -> list[str]:
    """The command of pytest on files that are written."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]")
    for name, code in files.items():
        (folder / f"test_{name}.py").write_text(WHO + code)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", *options]
    return [*command, f"--basetemp={folder / 'base'}", str(folder)]


def ask(folder: Path, *options: str, **files: str) -> tuple[int, str]:
    """The exit code of pytest on files, and what it said."""
    done = subprocess.run(
        write_files(folder, *options, **files),
        env={**os.environ, "PYTHONPATH": str(TESTS / "support")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def read_notes(folder: Path, kind: str) -> dict[str, list[str]]:
    """Which processes began, or ended, the tests of which files."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "base").glob(f"*/{kind}-*")):
        found.setdefault(path.name.removeprefix(f"{kind}-"), []).append(path.read_text())
    return found


def list_outcomes(said: str) -> tuple[list[str], str]:
    """The lines of the short summary, in the order of their names, and how many of what."""
    lines = re.findall(r"^(?:FAILED|ERROR|SKIPPED|XFAIL).*", said, flags=re.M)
    (counts,) = re.findall(r"=+ (.*) in [0-9.]+s =+", said)
    return sorted(lines), str(counts)


def test_reports_are_those_of_one_process(tmp_path: Path) -> None:
    """Every outcome, warning and printed line of it; the exit code, too."""
    files = {"a": EVERY_OUTCOME, "b": EVERY_OUTCOME, "c": "def test_c(): pass"}
    code, alone = ask(tmp_path, **files)
    forked_code, forked = ask(tmp_path, "--forks", "2", **files)
    assert forked_code == code == 1
    assert list_outcomes(forked) == list_outcomes(alone)
    counts = "4 failed, 5 passed, 2 skipped, 2 xfailed, 2 warnings, 2 errors"
    assert list_outcomes(forked)[1] == counts
    assert forked.count("said by a handler of the collection\n") == 2
    for each in ("said by one that fails", "said by its child", "this is a warning"):
        assert forked.count(f"{each}\n") == alone.count(f"{each}\n") > 0
    assert "said by one that passes" not in forked


MEETS = """
import time

def test_meets_another(tmp_path_factory):
    shared = tmp_path_factory.getbasetemp().parent
    while len(list(shared.glob("*/begun-*"))) < 2:
        time.sleep(0.05)

def test_more(): pass
"""


def test_a_files_tests_stay_together_and_its_fixtures_end(tmp_path: Path) -> None:
    """Each file in one process, none in the one that collected; two are at work at once."""
    files = {f"f{number}": MEETS for number in range(4)}
    code, said = ask(tmp_path, "--forks", "2", **files)
    begun, ended = read_notes(tmp_path, "begun"), read_notes(tmp_path, "ended")
    assert (code, len(begun)) == (0, 4), said
    assert begun == ended
    assert all(len(processes) == 1 for processes in begun.values())
    assert len({process for (process,) in begun.values()}) == 2


def test_where_a_process_dies_its_test_has_failed_and_the_others_run(tmp_path: Path) -> None:
    """Those of its file, and those of the files after it, too."""
    dies = "def test_1(): pass\ndef test_2(): os.kill(os.getpid(), 9)\ndef test_3(): pass\n"
    code, said = ask(tmp_path, "--forks", "1", a=dies, b="def test_b(): pass")
    lines, counts = list_outcomes(said)
    assert (code, counts) == (1, "1 failed, 3 passed")
    assert lines == ["FAILED test_a.py::test_2 - the process that ran this test died: -9"]


def test_the_first_failure_ends_all_where_it_is_to(tmp_path: Path) -> None:
    """Who is at work elsewhere is interrupted, and ends what its tests began."""
    fails = """
def test_fails(tmp_path_factory):
    import time
    while not (tmp_path_factory.getbasetemp().parent / "waits").exists():
        time.sleep(0.1)
    assert False
"""
    code, said = ask(
        tmp_path, "--forks", "2", "-x", a=TEST_THAT_WAITS, b=fails, c="def test_c(): pass"
    )
    assert code == 1
    assert list_outcomes(said)[1] == "1 failed"
    # The other process may be interrupted as it begins or ends its next test: as of pytest itself,
    # what a fixture was at then stays.
    assert "test_a" in read_notes(tmp_path, "ended")


def test_where_pytest_is_ended_what_it_forked_ends_too(tmp_path: Path) -> None:
    """By a signal that lets it do nothing more: what tests began is ended all the same."""
    command = write_files(tmp_path, "--forks", "2", a=TEST_THAT_WAITS)
    environment = {**os.environ, "PYTHONPATH": str(TESTS / "support")}
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=silent, stderr=silent) as process:
        # Not earlier: what a fixture that is interrupted was at is undone by nobody.
        wait_until(lambda: (tmp_path / "base" / "waits").exists())
        process.kill()
    wait_until(lambda: read_notes(tmp_path, "ended") == read_notes(tmp_path, "begun"))


def test_mistakes_of_collection_are_told_and_nothing_runs(tmp_path: Path) -> None:
    """As without forks."""
    code, said = ask(
        tmp_path, "--forks", "2", a="import nothing_of_this_name", b="def test_b(): pass"
    )
    assert code == 2
    assert "nothing_of_this_name" in said
    assert read_notes(tmp_path, "begun") == {}


WAITS = """
import os, sys, time
print(os.environ["MARK"], os.environ.get("LATER"), "json.tool" in sys.modules, os.getpid())
print("said to stderr", file=sys.stderr)
time.sleep(1800)
"""


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    """One of the test's own."""
    monkeypatch.setenv(ADDRESS, "")
    monkeypatch.delenv("LATER", raising=False)
    made = Nursery()
    yield made
    if os.environ.get(ADDRESS):
        made.close()


def begin(folder: Path, code: str) -> tuple[Forked, Path]:
    """A process that runs a script, and its log."""
    script, log = folder / "script.py", folder / "log"
    script.write_text(code)
    return Forked(runpy.run_path, ["json.tool"], log, path_name=str(script)), log


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_nursery_forks_what_has_the_environment_of_now(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that in which it was made; with what is needed imported. It speaks to its log, lives
    until it is told to end, and has then ended.
    """
    monkeypatch.setenv("MARK", "after")
    process, log = begin(tmp_path, WAITS)
    wait_until(lambda: log.exists() and log.read_text().endswith("said to stderr\n"))
    assert log.read_text().startswith(f"after None True {process.pid}\n")
    assert process.lives()
    process.end()
    wait_until(lambda: not psutil.pid_exists(process.pid))


def test_who_ends_alone_does_not_live_and_its_error_is_in_the_log(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The nursery goes on."""
    process, log = begin(tmp_path, "raise ValueError('of no use')")
    wait_until(lambda: not process.lives())
    process.end()
    assert "ValueError: of no use\n" in log.read_text()
    again, _ = begin(tmp_path, "")
    wait_until(lambda: not again.lives())
    again.end()


def test_nothing_outlives_its_nursery(nursery: Nursery, tmp_path: Path) -> None:
    """Whether it is deaf or not."""
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\n"
    process, log = begin(tmp_path, f"{deaf}import time\ntime.sleep(1800)")
    wait_until(lambda: log.exists() and log.read_text() == "deaf\n")
    os.kill(process.pid, signal.SIGTERM)
    nursery.close()
    wait_until(lambda: not process.lives())
    process.end()
