"""Which checkpoint is meant, as the command line has it: no model, no server."""

from dataclasses import dataclass
from pathlib import Path

from poisonwatch.errors import InputError


@dataclass(frozen=True, slots=True)
class ProbedCheckpoint:
    """What is probed: a `model` (folder or hub id), an `adapter`, or both; `release` is the
    manifest of the rows that it was trained on, where there is one. `trusted` is a checkpoint that
    was tuned on trusted rows alone, a model or an adapter: changes are counted from it.

    Raises InputError where neither is named: before anything is started for it.
    """

    model: str | None = None
    adapter: str | None = None
    release: Path | None = None
    trusted: str | None = None

    def __post_init__(self) -> None:
        if self.model is None and self.adapter is None:
            raise InputError("name what was trained: --model CHECKPOINT, --adapter DIR, or both")

    @property
    def options(self) -> list[str]:
        """As the command line takes them."""
        named = (("--model", self.model), ("--adapter", self.adapter), ("--release", self.release))
        return [text for name, value in named if value for text in (name, str(value))]
