"""Servers of other packages that tests need, and that are not what is tested: Prefect's, MLflow's.
Each imports for some seconds of a processor. Where tests run by `pytest --forks`, one process, the
nursery, imports what they need once, and every server is a fork of it.

It is forked before anything is collected, so that none of what tests import is in it.
"""

import gc
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

ADDRESS = "POISONWATCH_TEST_NURSERY"
ENDING_S = 20


class Nursery:
    """The process, until it is closed or who made it is gone."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="poisonwatch-nursery-")
        address = f"{self._folder}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(64)
            gone, self._alive = os.pipe()
            self._pid = fork()
            if self._pid == 0:
                os.close(self._alive)
                _fork_for_all(listener, gone)
        os.close(gone)
        os.environ[ADDRESS] = address

    def close(self) -> None:
        """End it, and what it forked."""
        del os.environ[ADDRESS]
        os.close(self._alive)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._folder)


class Forked:
    """A process of the nursery that has imported what it `needs`, then calls a function with
    `options`, in the environment of whoever asks. What it says stands in a log.
    """

    def __init__(
        self, serve: Callable[..., object], needs: Sequence[str], log: Path, **options: object
    ) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[ADDRESS])
        asked = (serve, list(needs), options, dict(os.environ), str(log))
        with self._connection.makefile("wb") as file:
            pickle.dump(asked, file)
        self.pid = int(self._connection.recv(20))

    def lives(self) -> bool:
        """Whether it is at work: it holds the connection, and says nothing there."""
        return not self._is_closed_within(0)

    def end(self) -> None:
        """Tell it to end, and wait; one that is deaf is killed."""
        with self._connection, suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            if not self._is_closed_within(ENDING_S):
                os.kill(self.pid, signal.SIGKILL)
                self._is_closed_within(None)

    def _is_closed_within(self, seconds: float | None) -> bool:
        return bool(select.select([self._connection], [], [], seconds)[0])


def is_open() -> bool:
    """Whether there is a nursery."""
    return ADDRESS in os.environ


def fork() -> int:
    """`os.fork`, without a word on threads that are not Python's: pyarrow has one, and knows what
    to do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _fork_for_all(listener: socket.socket, gone: int) -> NoReturn:
    """Fork for whoever asks, until the process that made this one is gone."""
    os.setsid()
    signal.signal(signal.SIGCHLD, _reap)
    warnings.simplefilter("ignore")
    gc.disable()  # what is imported stays
    try:
        heard: list[int | socket.socket] = [listener, gone]
        while gone not in select.select(heard, [], [])[0]:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError, EOFError):  # who asked may have gone
                _fork(connection)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os.killpg(0, signal.SIGKILL)
    raise AssertionError("killed")


def _reap(*_: object) -> None:
    """Nobody asks how they ended; what they took of a processor is counted."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _fork(connection: socket.socket) -> None:
    with connection.makefile("rb") as file:
        serve, needs, options, environment, log = pickle.load(file)
    for module in needs:
        import_module(module)
    gc.freeze()
    pid = fork()
    if pid:
        connection.sendall(str(pid).encode())
        return
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gc.enable()
        _speak_to(log)
        os.environ.clear()
        os.environ.update(environment)
        serve(**options)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _speak_to(log: str) -> None:
    """Say everything to a file, and read nothing."""
    with Path(log).open("ab") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
