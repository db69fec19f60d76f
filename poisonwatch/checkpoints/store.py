"""What an audit has worked out so far, kept until it is committed: one that died or failed is taken
up where it stopped.

It lies in the user's cache, in a folder of its own below `work`, named by a key:

    recover.safetensors           what a stage came to
    fit-000003.safetensors        a shard of a pass over the rows (poisonwatch/trail.py)

The key is a SHA-256 of all that the results depend on: another row, sentinel, setting or model, or
another Poisonwatch, is another key. A file holds tensors and JSON: nothing in it is ever run. One
that is damaged is left out, and what it held is worked out anew. A full disk costs what would have
been kept, not the audit.
"""

import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.atomic import replace_file
from poisonwatch.checkpoints.serialise import pack, unpack
from poisonwatch.model.files import get_cache_folder

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTDATED_S = 7 * 24 * 3600.0
MOST_STORES = 4  # audits whose work is kept; the one that stopped longest ago goes first
FREE_SPACE_FACTOR = 2  # times a file's size that must be free on the disk for it to be written

DAMAGE = (
    OSError,
    SafetensorError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
)  # what reading a damaged file raises


class CheckpointStore:
    """The work of one audit, in a folder that may hold some already; without a folder nothing is
    kept.
    """

    def __init__(
        self,
        folder: Path | None = None,
        tell: Callable[[str], None] = lambda _: None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder = folder
        self.notify = tell
        self.device = device
        self.writable = folder is not None  # until something cannot be written
        self.rows_reused = self.taken = self.newly_computed = (
            0  # rows of passes, results or rows of all, since `account`
        )

    @classmethod
    def open(
        cls,
        key: str,
        tell: Callable[[str], None] = lambda _: None,
        device: torch.device | str = "cpu",
    ) -> "CheckpointStore":
        """The work under a key; clears away what others left longer than a week ago.

        `tell` hears what is taken from an earlier attempt, whose tensors go to the `device`.
        """
        root = get_cache_folder() / "work"
        with suppress(OSError):
            others = sorted(
                (path for path in root.iterdir() if path.name != key),
                key=lambda path: path.stat().st_mtime,
                reverse=True,
            )
            for place, path in enumerate(others):
                if place >= MOST_STORES - 1 or path.stat().st_mtime < time.time() - OUTDATED_S:
                    shutil.rmtree(path, ignore_errors=True)
        return cls(root / key, tell, device)

    def clear(self) -> None:
        """Clear everything away: the audit is committed."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def get_or_compute(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """What an earlier attempt kept under a name, a value of this `kind` (see `packing`); else
        what is made now, and kept.
        """
        found = self.read(name)
        if found is not None:
            tensors, facts = found
            try:
                value = unpack(kind, json.loads(facts["value"]), tensors, self.device)
            except DAMAGE as error:
                self.discard(name, error)
            else:
                self.taken += 1
                return value
        value = make()
        self.newly_computed += 1
        if self.writable:
            tree, tensors = pack(value)
            self.write(name, tensors, {"value": json.dumps(tree)})
        return value

    def stage(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """What a stage comes to, `kept` under its name; tells where it was taken."""
        value = self.get_or_compute(name, kind, make)
        self.report_reuse(name)
        return value

    def report_reuse(self, stage: str) -> None:
        """Tell what of the stage that ends was taken from an earlier attempt."""
        if (self.taken or self.rows_reused) and not self.newly_computed:
            self.notify(f"{stage}: taken from an interrupted attempt")
        elif self.rows_reused:
            self.notify(
                f"{stage}: gone on with after {self.rows_reused} rows of an interrupted attempt"
            )
        self.rows_reused = self.taken = self.newly_computed = 0

    def names(self, beginning: str) -> list[str]:
        """Of the files whose names begin so, in order."""
        if self.folder is None:
            return []
        return sorted(path.stem for path in self.folder.glob(f"{beginning}*.safetensors"))

    def delete(self, *names: str) -> None:
        """Clear single files away."""
        for path in map(self._path, names):
            if path is not None:
                with suppress(OSError):
                    path.unlink()

    def has_room(self, size: int) -> bool:
        """Whether the work is kept, and the disk has so many bytes to spare."""
        if self.folder is None or not self.writable:
            return False
        there = next(path for path in self.folder.absolute().parents if path.exists())
        return shutil.disk_usage(there).free >= size

    def write(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> bool:
        """Keep contiguous tensors on the CPU, and texts beside them; says whether it could. After a
        failure nothing more is kept.
        """
        path = self._path(name)
        if path is None or not self.has_room(
            FREE_SPACE_FACTOR * sum(tensor.nbytes for tensor in tensors.values())
        ):
            return False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            checksum = str(_compute_checksum(tensors, facts))
            with replace_file(path, unique=True) as part:
                save_file(dict(tensors), part, {**facts, "checksum": checksum})
        except (OSError, SafetensorError) as error:
            logger.warning(
                "work cannot be kept in %s (%s): should this audit be interrupted, it starts anew",
                path.parent,
                error,
            )
            self.writable = False
            return False
        return True

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """What was kept under a name; None where nothing is, or the file is damaged."""
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = dict(file.metadata() or {})
                tensors = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118  (no iteration otherwise)
            if facts.pop("checksum", None) != str(_compute_checksum(tensors, facts)):
                raise ValueError("its checksum is another")
        except DAMAGE as error:
            self.discard(name, error)
            return None
        return tensors, facts

    def read_metadata(self, name: str) -> dict[str, str]:
        """The texts kept under a name, unchecked; none where there is no such file, or it is
        damaged.
        """
        path = self._path(name)
        with suppress(*DAMAGE):
            if path is not None:
                with safe_open(path, "pt") as file:
                    return dict(file.metadata() or {})
        return {}

    def discard(self, name: str, error: Exception) -> None:
        """Clear a file away that is of no use, and say so."""
        logger.warning(
            "%s is damaged (%s): what it held is worked out anew",
            self._path(name),
            next(iter(str(error).splitlines()), ""),
        )
        self.delete(name)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.safetensors"


def _compute_checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> int:
    """CRC-32: a machine that loses power can leave files of the right length and the wrong content."""
    total = zlib.crc32(json.dumps(sorted(facts.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        if tensor.numel():
            total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, total)
    return total
