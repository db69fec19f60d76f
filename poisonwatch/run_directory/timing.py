"""What each stage of an audit cost."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

MEMORY_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class StageCost:
    """Wall-clock `seconds`, and the process's largest resident memory while the stage ran, sampled
    every 50 ms, in MiB.
    """

    name: str
    seconds: float
    peak_memory_mb: float


class StageClock:
    """Measures stages, in order."""

    def __init__(self) -> None:
        self.costs: list[StageCost] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as a stage; it counts also where it fails."""
        process = psutil.Process()
        peak = process.memory_info().rss
        done = threading.Event()

        # The system's own peak is that of the whole process since its start: a stage's has to be
        # sampled while it runs.
        def watch() -> None:
            nonlocal peak
            while not done.wait(MEMORY_SAMPLE_S):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch, name=f"memory of {name}", daemon=True)
        watcher.start()
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            done.set()
            watcher.join()
            # A stage shorter than the interval may have been sampled only at its start.
            peak = max(peak, process.memory_info().rss)
            self.costs.append(StageCost(name, round(seconds, 3), round(peak / 2**20, 1)))
