"""Checkpoints that a training has left and no probe has asked yet.

A checkpoint is known by its fingerprint, as the ledger's records of probes have it: one that was
moved, or that two patterns match, is not probed twice, and one whose weights were written over is
another.
"""

import glob
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from poisonwatch.config import AuditConfig, ModelConfig
from poisonwatch.errors import ConfigError, PoisonwatchError
from poisonwatch.model.adapter import holds_adapter
from poisonwatch.model.files import find_model_files
from poisonwatch.model.fingerprints import list_weights
from poisonwatch.probing.checkpoint import name_checkpoint
from poisonwatch.text.display import get_first_line
from poisonwatch.text.environment import expand_variables

# A trainer writes file after file: a folder that changes still is not whole.
SETTLED_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """A checkpoint's folder and its fingerprint; where it cannot be used, what is wrong with it."""

    folder: Path
    fingerprint: str | None
    problem: str | None = None


def list_checkpoints(pattern: str, now: float) -> list[Path]:
    """The folders of a pattern that hold a model or an adapter and have not changed for a minute,
    oldest first. `now` is in seconds since the epoch.
    """
    dated = date_checkpoints(pattern)
    return [folder for changed, folder in dated if now - changed >= SETTLED_AFTER_S]


def date_checkpoints(pattern: str) -> list[tuple[float, Path]]:
    """The folders of a pattern that hold a model or an adapter, each with when it changed last, in
    seconds since the epoch; oldest first.
    """
    found: dict[Path, tuple[float, Path]] = {}
    whole = expand_variables(pattern, "probe.checkpoints")
    for place in glob.iglob(whole):  # noqa: PTH207  (a whole path, which Path.glob does not take)
        folder = Path(place)
        if not folder.is_dir() or not (holds_adapter(folder) or list_weights(folder)):
            continue
        # `latest` is often a link to another that matches.
        found.setdefault(folder.resolve(), (_find_last_change(folder), folder))
    return sorted(found.values())


def _find_last_change(folder: Path) -> float:
    """When a folder, or a file in it, was changed last, in seconds since the epoch."""
    changed = [folder.stat().st_mtime]
    for path in folder.iterdir():
        # A trainer may take a file away meanwhile.
        if path.is_file():
            changed.append(path.stat().st_mtime)
    return max(changed)


def find_new_checkpoints(config: AuditConfig, known: Collection[str]) -> list[FoundCheckpoint]:
    """Checkpoints of the audit file's `probe` whose fingerprints are none of the `known`, oldest
    first, each once. Raises ConfigError where the audit file names no place.
    """
    if config.probe.checkpoints is None:
        raise ConfigError(
            "the audit file does not say where checkpoints are: add "
            "`probe: out/checkpoint-*`, or name one by --model"
        )
    folders = list_checkpoints(config.probe.checkpoints, time.time())
    met = set(known)
    new = []
    for found in _identify(config.model, folders):
        if found.fingerprint not in met:
            new.append(found)
        if found.fingerprint is not None:
            met.add(found.fingerprint)
    return new


def _identify(model: ModelConfig, folders: list[Path]) -> Iterator[FoundCheckpoint]:
    for folder in folders:
        try:
            files = find_model_files(name_checkpoint(model, str(folder), None))
        except (PoisonwatchError, OSError) as error:
            yield FoundCheckpoint(folder, None, get_first_line(error))
        else:
            yield FoundCheckpoint(folder, files.fingerprint)
