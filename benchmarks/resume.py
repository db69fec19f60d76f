"""What an audit of the demo costs once more after it was killed, and what keeping its work costs
one that nothing disturbs.

    python benchmarks/resume.py [--model tiny] [--every 30]

Each audit runs in a process of its own, with a cache of its own: one that nothing disturbs; then,
for each point, one that kills itself there, and the next one, which is measured. Start-up is not
counted, nor is fetching a model. `tiny` is a random model of three blocks; its fit is over before
30 seconds are, the time between two shards: with `--every 0` every batch is kept.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poisonwatch.checkpoints import passes
from poisonwatch.checkpoints.passes import PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import ModelConfig
from poisonwatch.config_file import load_config
from poisonwatch.datasets.demo import write_demo
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import Engine
from poisonwatch.model.files import find_model_files
from poisonwatch.model.frozen import FrozenModel

POINTS = {
    "fit": "halfway through the fit",
    "recover": "after the fit",
    "record": "before the results are written",
}
HALF = 285  # of the demo's 384 new and 186 trusted rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=ModelConfig().name)
    parser.add_argument(
        "--every", type=float, default=passes.EVERY_S, help="seconds between two shards"
    )
    parser.add_argument(
        "--run", type=Path, help="run one audit in this folder, and print what it cost"
    )
    parser.add_argument("--die", choices=POINTS, help="kill it there")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(one_audit(options.run, options.every, options.die)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = (
            tiny_model(Path(folder) / "model")
            if options.model == "tiny"
            else find_model_files(ModelConfig(name=options.model)).folder
        )
        whole = run(Path(folder) / "whole", model, options.every)
        keeping = whole["keeping"]
        print(
            f"undisturbed: {whole['seconds']:.1f} s, {whole['fit']:.1f} s of it the fit, {whole['passed']} conversations passed through"
        )
        print(
            f"keeping: {keeping:.2f} s, {keeping / whole['fit']:.1%} of the fit, {keeping / whole['seconds']:.1%} of the audit; ",
            end="",
        )
        print(f"{whole['kept'] / 2**20:.0f} MiB\n")
        print(
            "| killed | conversations passed through | of all | seconds | of the audit |\n|---|---|---|---|---|"
        )
        for point, words in POINTS.items():
            run(Path(folder) / point, model, options.every, point)
            again = run(Path(folder) / point, model, options.every)
            shares = f"{again['passed']} | {again['passed'] / whole['passed']:.0%} | {again['seconds']:.1f}"
            print(f"| {words} | {shares} | {again['seconds'] / whole['seconds']:.1%} |", flush=True)


def tiny_model(folder: Path) -> Path:
    """The tests' random model, saved."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    from tiny_models import build_model, build_tokenizer

    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def run(folder: Path, model: Path, every: float, die: str | None = None) -> dict[str, Any]:
    """One audit in a process of its own; nothing is returned of one that kills itself."""
    if not folder.exists():
        config = write_demo(folder)
        config.write_text(f"{config.read_text()}model: {model}\n")
    command = [
        sys.executable,
        __file__,
        "--run",
        str(folder),
        "--every",
        str(every),
        *(["--die", die] if die else []),
    ]
    environment = {**os.environ, "POISONWATCH_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != (-signal.SIGKILL if die else 0):
        raise SystemExit(f"the audit ended with {done.returncode}:\n{done.stderr}")
    costs: dict[str, Any] = {} if die else json.loads(done.stdout.splitlines()[-1])
    return costs


def one_audit(folder: Path, every: float, die: str | None) -> dict[str, Any]:
    """Run an audit and measure it."""
    passes.EVERY_S = every
    costs = {"passed": 0, "keeping": 0.0, "kept": 0}
    clear, watch = CheckpointStore.clear, Stopwatch()

    def measured(self: CheckpointStore) -> None:
        costs["kept"] = (
            sum(path.stat().st_size for path in self.folder.glob("*")) if self.folder else 0
        )
        clear(self)

    CheckpointStore.clear = measured  # type: ignore[method-assign]
    CheckpointStore.write = watch.around(CheckpointStore.write)  # type: ignore[method-assign]
    PassCheckpoint._write_shard = watch.around(PassCheckpoint._write_shard)  # type: ignore[method-assign]
    count(costs, HALF if die == "fit" else None)
    if die in ("recover", "record"):
        kill_before(die)
    start = time.perf_counter()
    outcome = audit_inline(load_config(folder / "audit.yaml"), folder / f"run-{time.time_ns()}")
    fit = next(
        stage["seconds"] for stage in outcome.summary["stages"] if stage["name"] == "fit_operators"
    )
    return {**costs, "seconds": time.perf_counter() - start, "fit": fit, "keeping": watch.seconds}


class Stopwatch:
    """Seconds spent in some functions, whichever calls which."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            with self._running():
                return function(*args)

        return timed

    @contextmanager
    def _running(self) -> Iterator[None]:
        start, self._depth = time.perf_counter(), self._depth + 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - start


def count(costs: dict[str, Any], until: int | None) -> None:
    """Count the conversations that pass through the model; die when so many gradients are made."""
    run, gradients, made = FrozenModel._run, FrozenModel.compute_state_gradients, 0

    def counted(self: FrozenModel, batch: Any) -> Any:
        costs["passed"] += len(batch.input_ids)
        return run(self, batch)

    def fatal(self: FrozenModel, batch: Any) -> Any:
        nonlocal made
        if until is not None and made >= until:
            os.kill(os.getpid(), signal.SIGKILL)
        made += len(batch.rows)
        return gradients(self, batch)

    FrozenModel._run = counted  # type: ignore[method-assign]
    FrozenModel.compute_state_gradients = fatal  # type: ignore[method-assign]


def kill_before(name: str) -> None:
    """Die when a stage is to begin."""
    call = Engine.__call__

    def fatal(self: Engine, task: Any, *args: Any) -> Any:
        if task.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(self, task, *args)

    Engine.__call__ = fatal  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
