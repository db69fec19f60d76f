"""`pytest --forks N`: one process imports and collects, then forks N that run the tests. With xdist
each of them would import and collect anew, which takes half a minute of a processor.

Whoever is free takes the next file, in the order of the collection; a file's tests stay together,
since they share what takes long to start. Where a process dies, its test has failed, and another
process goes on with what was left to it.
"""

import atexit
import ctypes
import os
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import pytest
from nursery import fork

# A file in the queue: its first test, and the first of the next file.
FILE = struct.Struct("ii")
ENDING_S = 60  # what a process has to end what its tests left
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that comes where the parent is gone


@dataclass
class Worker:
    """A process, and the tests that it took and has not run to their end."""

    pid: int
    todo: list[int] = field(default_factory=list)
    done: bool = False


class Forks:
    """Runs the tests of a session in `count` processes, and reports what they report."""

    def __init__(self, config: pytest.Config, count: int) -> None:
        self._config = config
        self._count = count
        self._started = 0
        self._workers: dict[Connection, Worker] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run all that was collected."""
        if session.testsfailed or self._config.option.collectonly or not session.items:
            return None  # pytest says what is to be said
        queue = _queue_files(session.items)
        # with several files at once, the names of files would tell nothing
        self._config.pluginmanager.getplugin("terminalreporter").showfspath = False
        try:
            for _ in range(self._count):
                self._fork(session, queue, [])
            while any(not worker.done for worker in self._workers.values()):
                open_ones = [each for each, worker in self._workers.items() if not worker.done]
                for connection in wait(open_ones):
                    self._hear(session, queue, connection)  # type: ignore[arg-type]
                if session.shouldfail or session.shouldstop:
                    raise session.Failed(session.shouldfail or session.shouldstop)
        finally:
            os.close(queue)
            for worker in self._workers.values():
                _end(worker)
        return True

    def _fork(self, session: pytest.Session, queue: int, todo: Sequence[int]) -> None:
        """A process that runs what is `todo`, then what is in the queue."""
        assert threading.active_count() == 1, "what is imported may start no thread: it is lost"
        base: Path = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        folder = base / f"worker-{self._started}"
        folder.mkdir(mode=0o700)
        self._started += 1
        here, there = Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = fork()
        if pid == 0:
            _work(session, folder, there, chain(todo, _take_files(queue, there)))
        there.close()
        self._workers[here] = Worker(pid, list(todo))

    def _hear(self, session: pytest.Session, queue: int, connection: Connection) -> None:
        """What a process says next."""
        worker, hook = self._workers[connection], self._config.hook
        what, told = _receive(connection)
        match what:
            case "died":
                del self._workers[connection]
                self._bury(session, queue, worker)
            case "takes":
                worker.todo += told
            case "starts":
                item = session.items[told]
                hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            case "reports":
                report = hook.pytest_report_from_serializable(config=self._config, data=told)
                hook.pytest_runtest_logreport(report=report)
            case "warns":
                hook.pytest_warning_recorded.call_historic(kwargs=told)
            case "ends":
                item = session.items[worker.todo.pop(0)]
                hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            case "done":
                worker.done = True

    def _bury(self, session: pytest.Session, queue: int, worker: Worker) -> None:
        """What is to be done where a process died: its test has failed, the others wait."""
        _, status = os.waitpid(worker.pid, 0)
        said = f"the process that ran this test died: {os.waitstatus_to_exitcode(status)}"
        if not worker.todo:
            raise session.Failed(f"{said}, outside of a test")
        item = session.items[worker.todo[0]]
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=said,
            when="call",
        )
        self._config.hook.pytest_runtest_logreport(report=report)
        self._fork(session, queue, worker.todo[1:])


class Voice:
    """Tells the process that forked this one what pytest reports here."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """How a phase of a test ended."""
        hook = self._config.hook
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("reports", data))

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """What was warned of, as text: the rest may not travel."""
        seen = warning_message
        told: dict[str, Any] = {"when": when, "nodeid": nodeid, "location": location}
        told["warning_message"] = warnings.WarningMessage(
            str(seen.message), seen.category, seen.filename, seen.lineno
        )
        self._connection.send(("warns", told))


class Following:
    """The test after the one that runs, chosen once that has run: until then another process may
    take it. pytest asks, to keep what both of them use.
    """

    def __init__(self, session: pytest.Session, tests: Iterator[int]) -> None:
        self._session = session
        self._tests = tests
        self._chosen: list[int | None] = []

    def choose(self) -> int | None:
        """Its number; none where there is none left."""
        if not self._chosen:
            self._chosen.append(next(self._tests, None))
        return self._chosen[0]

    def listchain(self) -> list[Any]:
        """As of an item: what it is part of, and itself."""
        chosen = self.choose()
        return [] if chosen is None else self._session.items[chosen].listchain()


def _receive(connection: Connection) -> tuple[str, Any]:
    try:
        said: tuple[str, Any] = connection.recv()
    except (EOFError, OSError):
        return "died", None
    return said


def _queue_files(items: Sequence[pytest.Item]) -> int:
    """The tests of each file, in order: a pipe from which every process takes the next."""
    taken, given = os.pipe()
    first = 0
    for _, tests in groupby(items, key=lambda item: item.path):
        last = first + len(list(tests))
        os.write(given, FILE.pack(first, last))
        first = last
    os.close(given)
    return taken


def _take_files(queue: int, connection: Connection) -> Iterator[int]:
    """Tests of file after file, for as long as there are some."""
    while packed := os.read(queue, FILE.size):
        tests = range(*FILE.unpack(packed))
        connection.send(("takes", list(tests)))
        yield from tests


def _work(
    session: pytest.Session, folder: Path, connection: Connection, tests: Iterator[int]
) -> NoReturn:
    """Run tests in a process that was forked for it, and end it."""
    try:
        _settle(session.config, folder, connection)
        following = Following(session, tests)
        while (test := following.choose()) is not None:
            following = Following(session, tests)
            connection.send(("starts", test))
            session.config.hook.pytest_runtest_protocol(
                item=session.items[test], nextitem=following
            )
            connection.send(("ends", test))
        connection.send(("done", None))
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        session._setupstate.teardown_exact(None)
    finally:
        _leave()


def _settle(config: pytest.Config, folder: Path, connection: Connection) -> None:
    """A process has its own folder, catches what is printed in files of its own, says nothing at
    the terminal, and is interrupted where the one that forked it is gone, whatever ended that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    plugins = config.pluginmanager
    config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
    # Those who wrote to sys.stderr as they were imported, handlers of logging above all, have it
    # still: its file is another's from here on.
    capturing = plugins.getplugin("capturemanager")._global_capturing
    for stream in (capturing.out, capturing.err):
        if hasattr(stream, "targetfd"):
            with tempfile.TemporaryFile() as file:
                os.dup2(file.fileno(), stream.tmpfile.fileno(), inheritable=False)
    plugins.unregister(plugins.getplugin("terminalreporter"))
    plugins.register(Voice(config, connection))


def _leave() -> NoReturn:
    """End as Python ends, but not in what called us: that is the other process's. It has no more to
    hear; a thread that does not end is no reason to wait for ever.
    """
    try:
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ENDING_S)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        os._exit(0)


def _end(worker: Worker) -> None:
    """Wait for a process; one that is not done is interrupted, as from a terminal."""
    deadline = time.monotonic() + 2 * ENDING_S
    if not worker.done:
        os.kill(worker.pid, signal.SIGINT)
    while os.waitpid(worker.pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.02)
