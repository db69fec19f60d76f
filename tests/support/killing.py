"""kill -9 of a process before any of its writes: files and folders that it makes, opens to write,
renames or removes, databases that it opens, transactions that it ends.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

WRITES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "sqlite3.connect"}
MOST = 500  # that no work here has


def kill_before_each_write(
    folder: Path, work: Callable[[], None], lay_back: Callable[[], None] = lambda: None
) -> Iterator[int]:
    """Do `work` on what is in a folder, in a process of its own that is killed before its first
    write, then one before its second, and so on: the numbers of these writes, from 0. Each finds the
    folder as it was at first, and what `lay_back` lays back. Ends where one comes to its end.
    """
    before = folder.with_name(f"{folder.name}-before")
    shutil.copytree(folder, before)
    for number in range(MOST):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        lay_back()
        if not _run(work, number):
            return
        yield number
    raise AssertionError(f"more than {MOST} writes")


def _run(work: Callable[[], None], number: int) -> bool:
    """Whether the process was killed. What it raises fails the test."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _arm(number)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"write {number}: {code}"
    return code != 0


def _arm(number: int) -> None:
    left = number

    def count() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def hear(name: str, arguments: tuple[Any, ...]) -> None:
        if name in WRITES or (name == "open" and _writes(arguments)):
            count()

    event.listen(Engine, "commit", lambda _: count())
    sys.addaudithook(hear)


def _writes(opened: tuple[Any, ...]) -> bool:
    flags = opened[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
