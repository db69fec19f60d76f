"""A terminal for tests: commands one after the other, in one shell, as somebody types them."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from patience import PATIENCE_S


class Shell:
    """One shell in a folder: what a command exports, the next one has. Nothing that was started in
    it outlives it.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._log = folder / "shell.log"
        self._asked = 0
        with self._log.open("wb") as log:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # as in a terminal: what is started with & hears of SIGINT
        self.run("set -m")

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        shell = psutil.Process(self._shell.pid)
        for process in [*shell.children(recursive=True), shell]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()

    def run(self, command: str, typed: str = "") -> str:
        """A command that ends, and ends well: what it said. `typed` is what it asks for."""
        before = self._log.stat().st_size
        assert self._ask(f"{command}; echo $?", typed) == "0", self.read()
        return self._log.read_bytes()[before:].decode()

    def start(self, command: str) -> psutil.Process:
        """A command that lasts."""
        return psutil.Process(int(self._ask(f"{command} & echo $!")))

    def end(self, process: psutil.Process) -> int:
        """What a command that lasts answers to SIGTERM: its exit code."""
        process.terminate()
        return int(self._ask(f"wait {process.pid}; echo $?"))

    def read(self) -> str:
        """All that was said."""
        return self._log.read_text(errors="replace")

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, self.read()
            time.sleep(0.3)

    def _ask(self, line: str, typed: str = "") -> str:
        """A line whose last command says something: that."""
        assert self._shell.stdin is not None
        self._asked += 1
        said = self._folder / f".said-{self._asked}"
        self._shell.stdin.write(f"{line} > {said}.part; mv {said}.part {said}\n{typed}".encode())
        self._shell.stdin.flush()
        self.wait_until(said.exists)
        return said.read_text().strip()
