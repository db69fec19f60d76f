"""A terminal for tests: commands one after the other, in one shell, as somebody types them."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from patience import PATIENCE_S

TOLD_AGAIN_S = 30


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

    def end(self, process: psutil.Process, deaf: bool = False) -> int:
        """What a command that lasts answers to SIGTERM: its exit code. One that may be `deaf` is
        told again and again, as somebody at a terminal would.
        """
        process.terminate()
        told = time.monotonic()

        def tell_again() -> None:
            nonlocal told
            if deaf and time.monotonic() > told + TOLD_AGAIN_S:
                told = time.monotonic()
                with suppress(psutil.NoSuchProcess):
                    process.terminate()

        return int(self._ask(f"wait {process.pid}; echo $?", meanwhile=tell_again))

    def read(self) -> str:
        """All that was said."""
        return self._log.read_text(errors="replace")

    def wait_until(
        self, is_so: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            meanwhile()
            assert time.monotonic() < deadline, self.read()
            time.sleep(0.3)

    def _ask(self, line: str, typed: str = "", meanwhile: Callable[[], None] = lambda: None) -> str:
        """A line whose last command says something: that."""
        assert self._shell.stdin is not None
        self._asked += 1
        said = self._folder / f".said-{self._asked}"
        self._shell.stdin.write(f"{line} > {said}.part; mv {said}.part {said}\n{typed}".encode())
        self._shell.stdin.flush()
        self.wait_until(said.exists, meanwhile)
        return said.read_text().strip()
