"""How far an audit or a drill is, in a small file that others read while it is at work.

The file is named by the environment, so that it is written whichever way the work is called: with
Prefect or without. It is written whole or not at all, and never costs the work anything: a disk
that is full leaves it as it was.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from poisonwatch.atomic import replace_file

PROGRESS_VARIABLE = "POISONWATCH_PROGRESS_FILE"
WRITES_EVERY_S = 0.5  # of a pass: rows come by the thousand
MOST_BYTES = 1 << 20
LARGEST = 1e12  # seconds, or units of a pass
_NUMBER, _NOTHING = (int, float), type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "stage": (int,),
    "stages": (int,),
    "words": (str,),
    "task": (str,),
    "unit": (str,),
    "done": _NUMBER,
    "total": (*_NUMBER, _NOTHING),
    "left_s": (*_NUMBER, _NOTHING),
    "whole": (bool,),
    "outcome": (dict, _NOTHING),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkProgress:
    """Where the work is: at `stage` of `stages`, called `words`, in a pass of which `done` of
    `total` units are through (total None: nobody knows). `left_s` is the time left, in seconds, of
    all the work (`whole`), or of the pass. `outcome` is what came of it, once it is done.
    """

    stage: int = 0
    stages: int = 0
    words: str = ""
    task: str = ""
    unit: str = ""
    done: float = 0
    total: float | None = None
    left_s: float | None = None
    whole: bool = False
    outcome: Mapping[str, Any] | None = None

    @property
    def share(self) -> float | None:
        """How much of the pass is through, from 0 to 1; None where that is not known."""
        if not self.total:
            return None
        return min(self.done / self.total, 1.0)


class ProgressFile:
    """Writes how far the work is; nowhere where there is no `path`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._now = WorkProgress()
        self._written = 0.0

    @classmethod
    def from_environment(cls) -> "ProgressFile":
        """The file that the environment names."""
        place = os.environ.get(PROGRESS_VARIABLE)
        return cls(Path(place) if place else None)

    def enter_stage(self, stage: int, stages: int, words: str) -> None:
        """Note that a stage begins."""
        self._write(WorkProgress(stage=stage, stages=stages, words=words))

    def note_pass(
        self,
        task: str,
        unit: str,
        done: float,
        total: float | None,
        left_s: float | None,
        whole: bool,
    ) -> None:
        """Note how far a pass within the stage is; not each time, since rows come fast."""
        moment = time.monotonic()
        if self.path is None or (done != total and moment < self._written + WRITES_EVERY_S):
            return
        self._write(
            replace(
                self._now,
                task=task,
                unit=unit,
                done=done,
                total=total,
                left_s=left_s,
                whole=whole,
            )
        )

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Note what came of the work."""
        self._write(replace(self._now, left_s=None, outcome=outcome))

    def _write(self, now: WorkProgress) -> None:
        self._now = now
        if self.path is None:
            return
        self._written = time.monotonic()
        with suppress(OSError), replace_file(self.path) as part:
            part.write_text(json.dumps(asdict(now)), encoding="ascii")


def read_progress(path: Path) -> WorkProgress | None:
    """What a progress file says; None where there is none, or it is no such file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        told = json.loads(path.read_bytes())
        # Another version may have written more, or otherwise.
        known = {name: value for name, value in told.items() if name in _KINDS}
        if not all(_fits(value, _KINDS[name]) for name, value in known.items()):
            return None
        return WorkProgress(**known)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if type(value) in _NUMBER:
        return type(value) in kinds and abs(value) < LARGEST
    return type(value) in kinds
