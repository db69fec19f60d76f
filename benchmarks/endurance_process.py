"""The process of benchmarks/endurance.py that audits again and again, as its users' does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal, cast

import psutil

# What it does instead of an audit.
SYNC = "sync"


class LastingProcess:
    """A process that audits once for every line of its input, which names the engine."""

    def __init__(self, config: Path, environment: dict[str, str], log: Path) -> None:
        self.log = log
        command = [sys.executable, __file__, str(config)]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    def start_audit(self, engine: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(engine + "\n")
        self.process.stdin.flush()

    def finish_audit(self) -> dict[str, Any]:
        """What became of the audit: its counts and warnings, `failed` with the reason, or `ended`
        where the process has gone.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        return {"ended": self.process.wait()}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def run_lasting_process(config: Path) -> None:
    """What `LastingProcess` is, seen from inside."""
    from poisonwatch.config_file import load_config
    from poisonwatch.errors import PoisonwatchError
    from poisonwatch.flows.launch import run_audit
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.flows.sync import sync

    me = psutil.Process()
    for line in sys.stdin:
        start = time.perf_counter()
        told: dict[str, Any]
        try:
            settings = load_config(config)
            if line.strip() == SYNC:
                told = {"warnings": sync(settings, Reporter(quiet=True)).warnings}
            else:
                engine = cast(Literal["inline", "prefect"], line.strip())
                outcome = run_audit(config, settings, None, engine, quiet=True)
                told = {"new": outcome.summary["counts"]["new"], "warnings": outcome.warnings}
        except PoisonwatchError as error:
            told = {"failed": str(error)}
        except Exception as error:
            # the command line makes a line and a file of it
            told = {"failed": f"unforeseen: {type(error).__name__}: {error}"}
        told["seconds"] = round(time.perf_counter() - start, 1)
        told["rss_mb"] = round(me.memory_info().rss / 2**20)
        told["handles"] = me.num_fds()
        print(json.dumps(told), flush=True)
    # What Prefect still has to send of outages would take minutes.
    os._exit(0)


if __name__ == "__main__":
    run_lasting_process(Path(sys.argv[1]))
